"""Evaluation: `manifield evaluate`. Closed loop on unseen scenes, or offline on recorded episodes.

Every episode is a function of (split, seed, task, index) and the weights, so that the result does not depend on how
many workers share the work, and an interrupted evaluation goes on with the episodes that are missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from agents.agent import Agent
from agents.checkpoint import find_checkpoint, load_meta
from agents.offline import run_offline
from agents.playing import Player, kept_episode
from agents.rendering import SceneRenderer
from agents.report.summary import evaluation_table
from agents.statistics import wilson_interval
from demos.store import find_episodes
from envs.make import make_environment
from envs.seeds import SPLITS
from manifield.devices import find_device
from manifield.errors import InputError, choose, distinct, within
from manifield.files import only_writer, write_whole
from manifield.progress import Progress
from manifield.versions import usable_cores
from manifield.workers import results

POLICIES = ("trained", "untrained", "expert", "random")


def run(config: DictConfig) -> None:
    """Evaluate as `configs/evaluate.yaml` says."""
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    choose(config.policy, POLICIES, "policy")
    choose(config.split, SPLITS, "split")
    device = find_device(config.device)
    within(config, episodes=(1, 10**6), views=(0, 10**4), workers=(1, 256), seed=(0, 2**63))
    checkpoint = find_checkpoint(Path(config.run))
    folder = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    meta = load_meta(checkpoint)
    if config.max_actions is None:
        settings["max_actions"] = meta["agent"]["horizon"]
    within(settings, max_actions=(1, 1000))
    tasks = settings["tasks"] or _trained_tasks(meta["tasks"], settings["data"])
    settings["tasks"] = [tasks] if isinstance(tasks, str) else tasks
    distinct(settings["tasks"], "tasks")
    if settings["data"] is not None:
        if config.policy not in ("trained", "untrained"):
            raise InputError(f"policy={config.policy} has nothing to say about recorded episodes: leave out data=")
        torch.set_num_threads(usable_cores())
        name = config.name or ("offline" if config.policy == "trained" else f"offline_{config.policy}")
        renderer = SceneRenderer.load(checkpoint, device) if config.policy == "trained" else None
        agent = renderer.agent if renderer else Agent.load(checkpoint, config.policy == "untrained", device)
        run_offline(agent, settings, folder / name, renderer)
        return
    if settings["select"] is not None:
        raise InputError("select= chooses among recorded episodes: give their folder too, data=…")
    settings["env"] = seen_as_in_training(settings["env"], meta)
    for task in settings["tasks"]:  # a wrong name should show now, not after the tasks before it
        make_environment(settings["env"], task).close()
    if config.policy in ("trained", "untrained"):
        Agent.load(checkpoint, config.policy == "untrained")  # likewise a damaged checkpoint
    settings["checkpoint"] = str(checkpoint)
    usual = (config.split, config.seed) == ("test", 0)
    default = config.policy if usual else f"{config.policy}_{config.split}_{config.seed}"
    unseen = settings["env"].get("unseen", [])
    unseen.sort()  # the order means nothing
    default = "_".join([default, *unseen])
    summary = evaluate(settings, folder / "evaluation" / (config.name or default))
    scenes = ", ".join([f"{config.policy} on {config.split} scenes, seed {config.seed}", *unseen])
    print(f"{scenes}\n{evaluation_table(summary)}", flush=True)


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
    return summary


def _trained_tasks(trained: list[str], data: str | None) -> list[str]:
    """The tasks that an agent was trained on; of recorded episodes, those of them that are there."""
    if data is None:
        return trained
    there = {path.parents[2].name for path in find_episodes(data)}
    found = [task for task in trained if task in there]
    if not found:
        raise InputError(
            f"data={data} holds {', '.join(sorted(there))}, the agent was trained on {', '.join(trained)}: "
            "say which to evaluate on, tasks=[…]"
        )
    return found


def seen_as_in_training(env: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    """The environment's config with the cameras and the picture size that the agent was trained with.

    Raises:
        InputError: others were asked for.
    """
    trained = {"cameras": meta["cameras"], "image_size": meta["image_size"][0]}
    for key, value in trained.items():
        if env[key] is not None and env[key] != value:
            raise InputError(f"env.{key}={env[key]}: the agent was trained with {value}; leave it out")
    return env | trained


def _played_before(settings: dict[str, Any], out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Episodes that `out` holds of the same weights; those of other weights are dropped.

    Raises:
        InputError: they were played with other scenes or rules; they are not touched.
    """
    identity = {k: settings[k] for k in ("policy", "split", "seed", "env", "max_actions")}
    weights = Path(settings["checkpoint"]) / "model.safetensors"
    identity["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    file, log = out / "identity.json", out / "episodes.jsonl"
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    for key in identity.keys() & known.keys() - {"weights"}:
        if known[key] != identity[key]:
            raise InputError(
                f"{out} holds an evaluation with another {key} ({known[key]}): give this one another name="
            )
    if known.get("weights") != identity["weights"]:  # trained on since: yesterday's episodes say nothing any more
        for old in (out / "results.json", log):
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


def summarise(episodes: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Per task: successes with their Wilson interval, first choices, failures; over tasks: the mean."""
    tasks: dict[str, Any] = {}
    for task in settings["tasks"]:
        played = [e for e in episodes if e["task"] == task]
        chosen = [e for e in played if e["first_choice_correct"] is not None]
        times = [e["seconds_per_action"] for e in played if e["seconds_per_action"] is not None]
        successes = sum(e["success"] for e in played)
        tasks[task] = {
            "episodes": len(played),
            "successes": successes,
            "interval": wilson_interval(successes, len(played)),
            "first_choice": {
                "correct": sum(e["first_choice_correct"] for e in chosen),
                "of": len(chosen),
                "chance": float(np.mean([1 / e["choices"] for e in chosen])) if chosen else None,
            },
            "mean_steps": float(np.mean([e["steps"] for e in played])),
            "failures": dict(Counter(e["failure"] for e in played if e["failure"])),
            "seconds_per_action": float(np.mean(times)) if times else None,
        }
    return {
        "policy": settings["policy"],
        "checkpoint": settings["checkpoint"],
        "split": settings["split"],
        "seed": settings["seed"],
        "unseen": settings["env"].get("unseen", []),
        "tasks": tasks,
        "mean_success": float(np.mean([t["successes"] / t["episodes"] for t in tasks.values()])),
    }
