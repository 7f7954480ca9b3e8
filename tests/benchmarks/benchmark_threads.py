"""How much a training job suffers from another one beside it: threads that wait busily against threads that sleep.

    python -m tests.benchmarks.benchmark_threads

Two processes each train a small 3D network with all cores' threads, first with OpenMP's default waiting, then with
OMP_WAIT_POLICY=PASSIVE, which `manifield` sets. Printed are steps per second and the ratio within this run. On two
cores that other jobs were using too: default 1.4 steps/s each, passive 7.6 to 11 (5 to 8 times); one process alone on
such a busy machine: 2.9 to 5.3 against 11.7.
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
