"""How often, how fast and how safely the planner finds its way: `python -m tests.benchmarks.benchmark_planner`.

Every time is cpu time of one thread and holds for one call of `Planner.plan_free`. Feasible goals come from
`planner_scenes.feasible_problems`, so each is known to have a way that keeps the clearance in the table; every path is
carried out in the simulation, and "touched" counts those on which robot and scene, or two links, met. Equal
seeds give equal counts. For goals that cannot be reached, "right" counts the true reasons.

Measured on a machine with 2 cores that others kept busy (x86-64, MuJoCo 4.0.0); rows that are missing here were not
measured:

    goals                               number   right  touched   median    95 %    most  seconds
    out of reach: unreachable                7       7        -    0.270   0.336   0.351
    inside a wall: in collision              7       7        -    0.006   0.018   0.020
    in a closed box: no path                 7       7        -    0.006   0.016   0.017
    in the other room: no path               7       7        -    0.627   0.674   0.675
    wall, 12 mm                             70      70        0    0.022   0.093   0.178
    shelf, 12 mm                            70      70        0    0.060   0.167   0.257
    wall and shelf, 12 mm                   70      70        0    0.058   0.160   0.331
    wall, 4 mm                              70      70        0    0.017   0.086   0.124

Run it with --scenes 2 for a look, with --no-execution to leave the simulation out.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from envs.mujoco import control
from envs.mujoco.planner import Plan, Planner
from envs.mujoco.simulation import Simulation
from tests.benchmarks.planner_scenes import INFEASIBLE, KINDS, Problem, TouchLog, feasible_problems, place

GOALS_PER_SCENE = 10
CLEARANCES = (0.012, 0.004)  # metres: what the planner asks for first, and what only its second try allows
_HEADER = f"{'goals':34}{'number':>8}{'right':>8}{'touched':>9}{'median':>9}{'95 %':>8}{'most':>8}  seconds"


def timed_plan(simulation: Simulation, planner: Planner, problem: Problem) -> tuple[Plan, float]:
    """The plan for a problem, the arm having been put to its start, and the cpu seconds that it took."""
    place(simulation, problem.start)
    begin = time.thread_time()
    plan = planner.plan_free(problem.position, problem.rotation)
    return plan, time.thread_time() - begin


def measure_feasible(kind: str, clearance: float, scenes: int, executes: bool) -> str:
    """A line of the table: `scenes` random scenes of one kind."""
    seconds, planned, touched = [], 0, 0
    for seed in range(scenes):
        simulation, problems = feasible_problems(kind, np.random.default_rng([seed, 0]), GOALS_PER_SCENE, clearance)
        planner = Planner(simulation)
        for problem in problems:
            plan, spent = timed_plan(simulation, planner, problem)
            seconds.append(spent)
            if plan.path is None:
                continue
            planned += 1
            if executes:
                log = TouchLog(simulation)
                control.follow(simulation, plan.path)
                simulation.watchers.clear()
                touched += bool(log.touched)
    return _line(f"{kind}, {1000 * clearance:.0f} mm", planned, str(touched) if executes else "-", seconds)


def measure_infeasible(name: str, scenes: int) -> str:
    """A line of the table: `scenes` goals that cannot be reached for one reason."""
    make, reason = INFEASIBLE[name]
    seconds, right = [], 0
    for seed in range(scenes):
        simulation, problem = make(np.random.default_rng([seed, 1]))
        plan, spent = timed_plan(simulation, Planner(simulation), problem)
        seconds.append(spent)
        right += plan.failure == reason
    return _line(f"{name}: {reason}", right, "-", seconds)


def _line(name: str, right: int, touched: str, seconds: list[float]) -> str:
    median, high = np.percentile(seconds, [50, 95])
    times = f"{median:9.3f}{high:8.3f}{max(seconds):8.3f}"
    return f"{name:34}{len(seconds):>8}{right:>8}{touched:>9}{times}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of the motion planner.")
    parser.add_argument("--scenes", type=int, default=7, help="random scenes of each kind, ten goals in each")
    parser.add_argument("--no-execution", action="store_true", help="only plan")
    options = parser.parse_args()
    print(_HEADER)
    for name in INFEASIBLE:
        print(measure_infeasible(name, options.scenes), flush=True)
    for clearance in CLEARANCES:
        for kind in KINDS:
            print(measure_feasible(kind, clearance, options.scenes, not options.no_execution), flush=True)


if __name__ == "__main__":
    main()
