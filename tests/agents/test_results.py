"""What an evaluation comes to, in numbers and as CSV."""

from __future__ import annotations

import csv
import io

import pytest

from agents.results import results_csv, spread, spread_table, summarise, to_csv


def episode(success: bool, failure: str | None = None, seconds: tuple[float, ...] = (0.1, 0.3)) -> dict:
    mean = sum(seconds) / len(seconds) if seconds else None
    facts = {"task": "open", "first_choice_correct": success, "choices": 4, "steps": 3, "success": success}
    return facts | {"failure": failure, "seconds_per_action": mean, "action_seconds": list(seconds)}


def test_a_task_in_numbers_and_as_csv():
    episodes = [episode(True), episode(False, "imprecise", (0.2, 1.4)), episode(False, "imprecise", ())]
    settings = {"tasks": ["open"], "policy": "trained", "checkpoint": "c", "split": "dev", "seed": 0, "env": {}}
    summary = summarise(episodes, settings)
    found = summary["tasks"]["open"]
    assert found["successes"] == 1 and found["failures"] == {"imprecise": 2} and summary["mean_success"] == 1 / 3
    assert found["seconds_median"] == pytest.approx(0.25) and found["seconds_p95"] == pytest.approx(1.235)
    row = next(csv.DictReader(io.StringIO(results_csv(summary))))
    assert (row["task"], row["successes"], row["chance"], row["failures"]) == ("open", "1", "0.25", "2 imprecise")


def test_seeds_spread_and_episodes_have_an_interval():
    seeds = [{"a": {"successes": n, "episodes": 10}, "b": {"successes": 10, "episodes": 10}} for n in (4, 6)]
    rows = spread({"full": seeds})
    header, a, b, both = spread_table(rows)
    assert header == ["variant", "solved", "95 % interval", "mean", "std"]
    assert a == ["full, a", "10/20", "30–70 %", "50 %", "14.1"]  # 40 and 60 %: ± 20 / √2
    assert b[3:] == ["100 %", "0.0"]
    assert both == ["full, all", "30/40", "60–86 %", "75 %", "7.1"]
    assert to_csv(rows).splitlines()[0] == "variant,task,seeds,solved,episodes,low,high,mean,std"
