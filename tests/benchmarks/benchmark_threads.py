"""How much a training job suffers from another one beside it: threads that wait busily against threads that sleep.

    python -m tests.benchmarks.benchmark_threads

One process, then two, train a small 3D network with all cores' threads, with OpenMP's default waiting and with
OMP_WAIT_POLICY=PASSIVE; printed are steps per second and the ratio within this run. Seen on two cores that other jobs
were using too: one process 2.7 against 8.6, two processes 1.6 against 28.5 each. On an idle machine it is the other way
round: the laptop's agent trained at 2.3 steps/s by default and at 1.35 with threads that sleep. So Manifield leaves the
default, and whoever shares a machine sets OMP_WAIT_POLICY=PASSIVE.
"""

from __future__ import annotations

import os
import subprocess
import sys

SECONDS = 10
JOB = f"""
import os, time, torch
torch.set_num_threads(os.cpu_count())
torch.manual_seed(0)
layers = [torch.nn.Conv3d(8, 32, 3, padding=1), torch.nn.GELU(), torch.nn.Conv3d(32, 8, 3, padding=1)]
network, volume, steps = torch.nn.Sequential(*layers), torch.randn(4, 8, 16, 16, 16), 0
optimiser, end = torch.optim.AdamW(network.parameters()), time.perf_counter() + {SECONDS}
while time.perf_counter() < end:
    optimiser.zero_grad()
    network(volume).square().mean().backward()
    optimiser.step()
    steps += 1
print(steps / {SECONDS})
"""


def steps_per_second(policy: str | None, jobs: int) -> float:
    """Mean over `jobs` processes that run at the same time."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    running = [
        subprocess.Popen([sys.executable, "-c", JOB], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(jobs)
    ]
    return sum(float(process.communicate()[0]) for process in running) / jobs


def main() -> None:
    """Print the table."""
    print(f"{'jobs':>4}{'default':>10}{'passive':>10}{'ratio':>8}")
    for jobs in (1, 2):
        default, passive = steps_per_second(None, jobs), steps_per_second("PASSIVE", jobs)
        print(f"{jobs:>4}{default:>10.1f}{passive:>10.1f}{passive / default:>8.1f}")


if __name__ == "__main__":
    main()
