"""`manifield ablate`: variants of one training side by side, over several training seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from agents.report.summary import align, interval, percent
from agents.statistics import wilson_interval
from demos.features import cache_folder
from manifield.command import perform, quoted
from manifield.configuration import compose, show
from manifield.errors import InputError, choose, distinct
from manifield.files import write_whole

TABLE = "table.txt"


def run(config: DictConfig) -> None:
    """Train, evaluate and tabulate as `configs/ablate.yaml` says."""
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    variants: dict[str, dict[str, Any]] = settings["variants"] | settings["more"]
    only = settings["only"] or list(variants)
    only = [only] if isinstance(only, str) else only
    distinct(only, "only")
    distinct(settings["seeds"], "seeds")
    runs, shared = Path(config.runs), {"data": config.data, "field": config.field, **settings["train"]}
    words = {name: _words(shared | variants[choose(name, variants, "variant")]) for name in only}
    for name in only:  # before hours of training
        _check(name, words[name])
    jobs = [(seed, name) for seed in settings["seeds"] for name in only]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in only}
    for number, (seed, name) in enumerate(jobs):
        folder = runs / f"{name}_{seed}"
        for verb, its in (
            ("train", [*words[name], f"seed={seed}", f"run={folder}"]),
            ("evaluate", [*_words(settings["evaluate"]), f"run={folder}", "name=ablation"]),
        ):
            print(f"[{number + 1}/{len(jobs)}] {quoted(verb, its)}", flush=True)
            perform(verb, its)
        results[name].append(json.loads((folder / "evaluation" / "ablation" / "results.json").read_text())["tasks"])
    table = align(rows(results))
    runs.mkdir(parents=True, exist_ok=True)
    write_whole(runs / TABLE, table + "\n")
    print(f"{table}\nalso in {runs / TABLE}")


def rows(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """A header, and of each variant a row a task and one over all: solved of all seeds' episodes, the 95 % interval of
    that share, the mean over seeds and their standard deviation. results: by variant, of each seed the tasks'."""
    found = [["variant", "solved", "95 % interval", "mean", "std"]]
    for name, seeds in results.items():
        tasks = list(seeds[0])
        for task in [*tasks, "all"] if len(tasks) > 1 else tasks:
            chosen = [list(one.values()) if task == "all" else [one[task]] for one in seeds]
            rates = [float(np.mean([t["successes"] / t["episodes"] for t in one])) for one in chosen]
            solved, played = (sum(t[key] for one in chosen for t in one) for key in ("successes", "episodes"))
            spread = f"{100 * np.std(rates, ddof=1):.1f}" if len(rates) > 1 else "–"
            between = interval(wilson_interval(solved, played))
            found.append([f"{name}, {task}", f"{solved}/{played}", between, percent(float(np.mean(rates))), spread])
    return found


def _words(keys: Mapping[str, Any]) -> list[str]:
    return [f"{key}={show(value)}" for key, value in keys.items()]


def _check(name: str, words: list[str]) -> None:
    """Raises InputError if a variant's words are wrong, or the features that it learns from are not there."""
    try:
        config = compose("train", words)
        field, data = config.field, config.data
        teacher = field.teacher if field and field.lambda_feat else "none"
        if teacher != "none" and not cache_folder(data, teacher).is_dir():
            raise InputError(f"no features of {teacher} in {data}: manifield features data={data} teacher={teacher}")
    except InputError as error:
        raise InputError(f"variant {name}: {error}; or leave it out, only=[…]") from error
