"""The episodes of one evaluation: played by workers, kept as they come, and not played again.

Every episode is a function of (split, seed, task, index) and the weights, so that the result does not depend on how
many workers share the work, and an interrupted evaluation goes on with the episodes that are missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from agents.playing import Player, kept_episode
from agents.results import results_csv, summarise
from manifield.errors import InputError
from manifield.files import only_writer, write_whole
from manifield.progress import Progress
from manifield.workers import results

RULES = ("policy", "split", "seed", "env", "max_actions", "scenes", "variations")
"""Settings that make the episodes what they are; evaluations from before `scenes` and `variations` had none."""
WEIGHTLESS = ("expert", "random")
"""Policies that play without a checkpoint's weights."""


def evaluate(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Play the episodes that `out` does not hold yet, then write `out`/results.json and return it."""
    with only_writer(out, "evaluate", "name"):
        (out / "strips").mkdir(exist_ok=True)
        done = _played_before(settings, out)
        wanted = [(t, i) for i in range(settings["episodes"]) for t in settings["tasks"]]
        if settings["keep"]:  # what was played but not kept is played again, and turns out the same
            done = {job: episode for job, episode in done.items() if kept_episode(out, *job).is_dir()}
        jobs = [job for job in wanted if job not in done]
        done = {job: done[job] for job in wanted if job in done}
        if done:
            print(f"{out}: {len(done)} of {len(wanted)} episodes were played before; another name= plays anew")
        begin = time.perf_counter()
        title, total = f"evaluate {settings['policy']}", len(done) + len(jobs)
        with (out / "episodes.jsonl").open("a") as log, Progress(title, total, "episodes", len(done)) as progress:
            for episode in results(Player(settings, out), jobs, settings["workers"], settings["cluster"]):
                done[episode["task"], episode["index"]] = episode
                log.write(json.dumps(episode) + "\n")
                log.flush()
                progress.advance(1, success=f"{np.mean([e['success'] for e in done.values()]):.0%}")
        episodes = [done[job] for job in wanted]
        summary = summarise(episodes, settings) | {"seconds": round(time.perf_counter() - begin, 1)}
        write_whole(out / "results.json", json.dumps(summary, indent=1))
        write_whole(out / "results.csv", results_csv(summary))
    return summary


def _played_before(settings: dict[str, Any], out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Episodes that `out` holds of the same weights; those of other weights are dropped.

    Raises:
        InputError: they were played with other scenes or rules; they are not touched.
    """
    identity = {k: settings[k] for k in RULES}
    identity["weights"] = None
    if settings["policy"] not in WEIGHTLESS:
        weights = Path(settings["checkpoint"]) / "model.safetensors"
        identity["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    file, log = out / "identity.json", out / "episodes.jsonl"
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    for key in RULES if known else ():
        if known.get(key) != identity[key]:
            raise InputError(
                f"{out} holds an evaluation with another {key} ({known.get(key)}): give this one another name="
            )
    trained_on = identity["weights"] is not None and known.get("weights") != identity["weights"]
    if not known or trained_on:  # yesterday's episodes say nothing any more
        for old in (out / "results.json", out / "results.csv", log):
            old.unlink(missing_ok=True)
        shutil.rmtree(out / "rollouts", ignore_errors=True)
        write_whole(file, json.dumps(identity, indent=1))
    episodes = {}
    for line in log.read_text().splitlines() if log.is_file() else []:
        try:
            episode = json.loads(line)
        except ValueError:  # the line that was being written when the evaluation was killed: played again
            continue
        episodes[episode["task"], episode["index"]] = episode
    write_whole(log, "".join(json.dumps(e) + "\n" for e in episodes.values()))
    return episodes
