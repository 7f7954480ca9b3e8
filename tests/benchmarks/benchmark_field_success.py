"""Does the neural field help the agent? Equal data, steps and scenes, with and without it, several training seeds.

    python -m tests.benchmarks.benchmark_field_success DATA RUNS [SEEDS]

DATA holds demonstrations with field views and their features (`make demo` leaves data/demo). RUNS is the folder of the
runs, RUNS/none_0, RUNS/laptop_0, ...; what is there already is not done again, so that this can be stopped at any time.
On two cores a run takes a quarter of an hour. Printed is one row a setting and task: solved of all seeds' episodes, the
95 % interval of that share, the mean over seeds and their standard deviation.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from agents.statistics import wilson_interval

SETTINGS = ("none", "laptop")


def play(data: Path, run: Path, setting: str, seed: int) -> dict[str, dict[str, int]]:
    """Train and evaluate one run as far as that is not done; its tasks' results."""
    manifield = [sys.executable, "-m", "manifield.command"]
    results = run / "evaluation" / "trained" / "results.json"
    if not results.is_file():
        words = [f"data={data}", f"run={run}", f"field={setting}", f"seed={seed}", "wandb=disabled"]
        subprocess.run([*manifield, "train", *words], check=True)
        subprocess.run([*manifield, "evaluate", f"run={run}"], check=True)
    tasks: dict[str, dict[str, int]] = json.loads(results.read_text())["tasks"]
    return tasks


def main() -> None:
    data, runs = Path(sys.argv[1]), Path(sys.argv[2])
    seeds = range(int(sys.argv[3]) if len(sys.argv) > 3 else 3)
    found = {
        (setting, seed): play(data, runs / f"{setting}_{seed}", setting, seed) for seed in seeds for setting in SETTINGS
    }
    print(f"{'field':8}{'task':32}{'solved':>9}{'95 % interval':>16}{'mean':>7}{'std':>6}")
    for setting in SETTINGS:
        mine = [found[setting, seed] for seed in seeds]
        for task in [*mine[0], "mean"]:
            chosen = [list(tasks.values()) if task == "mean" else [tasks[task]] for tasks in mine]
            rates = [np.mean([t["successes"] / t["episodes"] for t in one]) for one in chosen]
            solved, played = (sum(t[key] for one in chosen for t in one) for key in ("successes", "episodes"))
            low, high = wilson_interval(solved, played)
            deviation = np.std(rates, ddof=1) if len(rates) > 1 else 0.0
            print(
                f"{setting:8}{task:32}{solved:>5}/{played:<3}{f'{low:.0%}–{high:.0%}':>16}"
                f"{np.mean(rates):7.0%}{deviation:6.1%}"
            )


if __name__ == "__main__":
    main()
