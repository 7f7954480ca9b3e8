"""`manifield ablate`: variants of one training side by side, over several training seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agents.report.summary import align
from agents.results import spread, spread_table, to_csv
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
    rows = spread(results)
    table = align(spread_table(rows))
    runs.mkdir(parents=True, exist_ok=True)
    write_whole(runs / TABLE, table + "\n")
    write_whole(runs / "table.csv", to_csv(rows))
    print(f"{table}\nalso in {runs / TABLE} and table.csv")


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
