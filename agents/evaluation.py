"""Evaluation: `manifield evaluate`. Closed loop on unseen scenes, or offline on recorded episodes.

Every episode is a function of (split, seed, task, index) and the checkpoint, so that the result does not depend on how
many workers share the work, and an interrupted evaluation goes on with the episodes that are missing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from agents.agent import Agent
from agents.checkpoint import find_checkpoint, load_meta
from agents.offline import run_offline
from agents.report.pictures import draw_keyframe, film_strip, overlay_heat, png_bytes, upscale
from agents.statistics import wilson_interval
from demos.collect import make_environment
from envs.interface import Action, Environment, NoExpert, Observation
from envs.rollout import rollout
from envs.seeds import episode_seed, episode_variation
from manifield.errors import choose
from manifield.progress import Progress

POLICIES = ("trained", "untrained", "expert", "random")


def run(config: DictConfig) -> None:
    """Evaluate as `configs/evaluate.yaml` says."""
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    choose(config.policy, POLICIES, "policy")
    folder = Path(config.run)
    if settings["data"] is not None:
        torch.set_num_threads(os.cpu_count() or 1)
        run_offline(Agent.load(folder), settings, folder / "offline")
        return
    checkpoint = find_checkpoint(folder)
    meta = load_meta(checkpoint)
    tasks = settings["tasks"] or meta["tasks"]
    settings["tasks"] = [tasks] if isinstance(tasks, str) else tasks
    settings["env"] = {**settings["env"], "cameras": meta["cameras"], "image_size": meta["image_size"][0]}
    settings["checkpoint"] = str(checkpoint)
    out = folder / "evaluation" / (config.name or config.policy)
    results = evaluate(settings, out)
    print(table(results), flush=True)


def evaluate(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Play the episodes that `out` does not hold yet, then write `out`/results.json and return it."""
    (out / "strips").mkdir(parents=True, exist_ok=True)
    identity = {k: settings[k] for k in ("checkpoint", "policy", "split", "seed", "env", "max_actions")}
    log = out / "episodes.jsonl"
    done = _read_log(log, out / "identity.json", identity)
    jobs = [(t, i) for i in range(settings["episodes"]) for t in settings["tasks"] if (t, i) not in done]
    begin = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with (
        log.open("a") as file,
        Progress(f"evaluate {settings['policy']}", len(done) + len(jobs), "episodes", len(done)) as bar,
        ProcessPoolExecutor(settings["workers"], context, initializer=_start_worker, initargs=(settings, out)) as pool,
    ):
        for future in as_completed([pool.submit(_play, *job) for job in jobs]):
            episode = future.result()
            done[episode["task"], episode["index"]] = episode
            file.write(json.dumps(episode) + "\n")
            file.flush()
            bar.advance(1, success=f"{np.mean([e['success'] for e in done.values()]):.0%}")
    episodes = [done[t, i] for t in settings["tasks"] for i in range(settings["episodes"])]
    results = summarise(episodes, settings) | {"seconds": round(time.perf_counter() - begin, 1)}
    (out / "results.json").write_text(json.dumps(results, indent=1))
    return results


def _read_log(log: Path, identity_file: Path, identity: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """Episodes already played under the same identity; those of another checkpoint or seed are dropped."""
    known = json.loads(identity_file.read_text()) if identity_file.is_file() else None
    if known != json.loads(json.dumps(identity)):
        log.unlink(missing_ok=True)
        identity_file.write_text(json.dumps(identity, indent=1))
        return {}
    lines = log.read_text().splitlines() if log.is_file() else []
    episodes = []
    for line in lines:
        try:
            episodes.append(json.loads(line))
        except ValueError:  # the line that was being written when the evaluation was killed: played again
            continue
    log.write_text("".join(json.dumps(e) + "\n" for e in episodes))
    return {(e["task"], e["index"]): e for e in episodes}


_worker: dict[str, Any] = {}


def _start_worker(settings: dict[str, Any], out: Path) -> None:
    torch.set_num_threads(1)
    _worker.update(settings=settings, out=out, environments={})
    if settings["policy"] in ("trained", "untrained"):
        _worker["agent"] = Agent.load(Path(settings["checkpoint"]), settings["policy"] == "untrained")


def _play(task: str, index: int) -> dict[str, Any]:
    """One episode, as the line of episodes.jsonl that tells of it."""
    settings, out = _worker["settings"], _worker["out"]
    if task not in _worker["environments"]:  # a worker keeps one scene alive per task: a context each costs memory
        _worker["environments"][task] = make_environment(settings["env"], task)
    env: Environment = _worker["environments"][task]
    seed = episode_seed(settings["split"], settings["seed"], task, index)
    variation = episode_variation(settings["seed"], task, index, env.variation_count())
    rng = np.random.default_rng(seed)
    start = env.reset(seed, variation)
    instruction = start.descriptions[int(rng.integers(len(start.descriptions)))]
    choices = env.choices()
    frames: list[np.ndarray] = []
    captions: list[str] = []
    seconds: list[float] = []
    expert = env.expert() if settings["policy"] == "expert" else None

    def act(observation: Observation, number: int) -> Action | None:
        begin = time.perf_counter()
        if expert is not None:
            try:
                return next(expert, None)
            except NoExpert:
                return None
        if settings["policy"] == "random":
            return _random_action(rng)
        action, prediction = _worker["agent"].act(observation, instruction, number)
        seconds.append(time.perf_counter() - begin)
        frames.append(_picture(observation, action, prediction))
        captions.append(f"{number + 1}: {'open' if action.gripper_open else 'closed'}")
        return action

    played = rollout(env, start, act, settings["max_actions"])
    right = None
    if choices is not None and played.actions:
        right = choices.chosen(played.actions[0].position) == choices.right
    strip = None
    if frames:
        frames.append(upscale(env.observe().cameras[next(iter(start.observation.cameras))].rgb, 2))
        captions.append("success" if played.success else played.failure or "not solved")
        strip = f"strips/{task}_{index}.png"
        (out / strip).write_bytes(png_bytes(film_strip(frames, captions)))
    failure = None
    if not played.success:
        failure = "wrong object" if right is False else played.failure or "not solved in time"
    return {
        "task": task,
        "index": index,
        "seed": seed,
        "variation": variation,
        "instruction": instruction,
        "success": played.success,
        "steps": len(played.actions),
        "failure": failure,
        "first_choice_correct": right,
        "choices": None if choices is None else len(choices.candidates),
        "seconds_per_action": round(float(np.mean(seconds)), 3) if seconds else None,
        "strip": strip,
    }


def _random_action(rng: np.random.Generator) -> Action:
    """A pose somewhere above the table, gripper down: what chance would do."""
    yaw = rng.uniform(-np.pi / 2, np.pi / 2)
    position = rng.uniform([0.0, -0.35, 0.77], [0.45, 0.35, 1.1])
    down = np.array([np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0])
    return Action(position, down, bool(rng.integers(2)), bool(rng.integers(2)))


def _picture(observation: Observation, action: Action, prediction: Any) -> np.ndarray:
    """The first camera's picture with the coarse Q-map as heat and the chosen key-frame drawn in, twice as large."""
    view = next(iter(observation.cameras.values()))
    q = prediction.q[0][0]
    heat = q.flatten().softmax(0).view(q.shape).numpy()
    rgb = overlay_heat(upscale(view.rgb, 2), view, heat, prediction.low[0][0].numpy(), prediction.high[0][0].numpy())
    return draw_keyframe(rgb, view, action.position, action.quaternion, action.gripper_open)


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
        "tasks": tasks,
        "mean_success": float(np.mean([t["successes"] / t["episodes"] for t in tasks.values()])),
    }


def table(results: dict[str, Any]) -> str:
    """Plain-text table of results.json."""
    lines = [f"{results['policy']} on split {results['split']}, seed {results['seed']}"]
    lines.append(f"{'task':32}{'success':>16}{'95 % interval':>16}{'first choice':>14}{'chance':>8}  failures")
    for task, row in results["tasks"].items():
        low, high = row["interval"]
        first = row["first_choice"]
        choice = (
            f"{first['correct']:>8} of {first['of']:<3}{first['chance']:7.0%}" if first["of"] else f"{'–':>14}{'':8}"
        )
        lines.append(
            f"{task:32}{row['successes']:>5} of {row['episodes']:<3}{row['successes'] / row['episodes']:5.0%}"
            f"{low:>9.0%} –{high:4.0%}"
            f"{choice}  " + ", ".join(f"{v} {k}" for k, v in row["failures"].items())
        )
    lines.append(f"{'mean':32}{results['mean_success']:>16.0%}")
    return "\n".join(lines)
