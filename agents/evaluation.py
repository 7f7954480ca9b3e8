"""Evaluation: `manifield evaluate`. Closed loop on unseen scenes, or offline on recorded episodes.

One evaluation is one checkpoint on the scenes of one seed (`agents.episodes`); several of either are told together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from agents.agent import Agent
from agents.checkpoint import choose_checkpoints, latest_checkpoint, load_meta
from agents.episodes import WEIGHTLESS, evaluate
from agents.offline import run_offline
from agents.rendering import SceneRenderer
from agents.report.summary import align, evaluation_table
from agents.results import spread, spread_table, to_csv
from demos.store import find_episodes
from envs.interface import Environment
from envs.make import make_environment
from envs.seeds import SPLITS, choose_variations
from manifield.command import run_folder
from manifield.devices import find_device
from manifield.errors import InputError, choose, distinct, within
from manifield.files import write_whole
from manifield.versions import usable_cores

POLICIES = ("trained", "untrained", "expert", "random")
LONGEST = 25
"""Key-frames that an episode may have where no agent says so: enough for the ten tasks of GNFactor's paper."""


def run(config: DictConfig) -> list[dict[str, Any]] | None:
    """Evaluate as `configs/evaluate.yaml` says. Of episodes that were played, the rows of `agents.results.spread`."""
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    choose(config.policy, POLICIES, "policy")
    choose(config.split, SPLITS, "split")
    find_device(config.device)
    within(config, episodes=(1, 10**6), views=(0, 10**4), workers=(1, 256), seed=(0, 2**63))
    seeds = settings["seed"] if settings["seeds"] is None else settings["seeds"]
    seeds = seeds if isinstance(seeds, list) else [seeds]
    distinct(seeds, "seeds")
    for seed in seeds:
        within({"seeds": seed}, seeds=(0, 2**63))
    checkpoints, meta = _checkpoints(settings)
    if settings["max_actions"] is None:
        settings["max_actions"] = meta["agent"]["horizon"]
    within(settings, max_actions=(1, 1000))
    tasks = settings["tasks"] or _trained_tasks(meta["tasks"], settings["data"])
    settings["tasks"] = [tasks] if isinstance(tasks, str) else tasks
    distinct(settings["tasks"], "tasks")
    if settings["data"] is not None:
        _measure_offline(settings, checkpoints)
        return None
    if settings["select"] is not None:
        raise InputError("select= chooses among recorded episodes: give their folder too, data=…")
    settings["env"] = seen_as_in_training(settings["env"], meta)
    settings["env"].get("unseen", []).sort()  # the order means nothing
    settings["variations"] = _check_worlds(settings)
    if config.policy not in WEIGHTLESS:
        for checkpoint in checkpoints:
            Agent.load(checkpoint, config.policy == "untrained")  # likewise a damaged checkpoint
    plans = [(checkpoint, seed) for checkpoint in checkpoints for seed in seeds]
    folder, found = run_folder(checkpoints[-1]) / "evaluation", dict[str, list[dict[str, Any]]]()
    for checkpoint, seed in plans:
        name = _name(settings, checkpoint, seed, len(seeds) > 1)
        summary = evaluate(settings | {"checkpoint": str(checkpoint), "seed": seed}, folder / name)
        print(f"{_scenes(settings, seed)}, {checkpoint.name}\n{evaluation_table(summary)}", flush=True)
        found.setdefault(checkpoint.name, []).append(summary["tasks"])
    rows, base = spread(found), settings["name"] or settings["policy"]
    if len(plans) > 1:
        write_whole(folder / f"{base}_all.csv", to_csv(rows))
        seeds_words = f"{len(seeds)} seeds of scenes" if len(seeds) > 1 else "one seed of scenes"
        print(f"{seeds_words}\n{align(spread_table(rows, 'checkpoint'))}\nalso in {folder / f'{base}_all.csv'}")
    return rows


def _checkpoints(settings: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
    """What is evaluated, and the newest one's description. Experts and chance play without an agent, too: then it is
    the run's folder, and the description says how long and on what they play."""
    run = Path(settings["run"])
    alone = settings["policy"] in WEIGHTLESS and not (run / "agent.json").is_file() and latest_checkpoint(run) is None
    if alone:
        if not settings["tasks"]:
            raise InputError(f"no agent in '{run}' whose tasks policy={settings['policy']} could play: give tasks=[…]")
        return [run], {"agent": {"horizon": settings["max_actions"] or LONGEST}, "tasks": settings["tasks"]}
    checkpoints = choose_checkpoints(run, settings["checkpoints"])
    return checkpoints, load_meta(checkpoints[-1])


def _name(settings: dict[str, Any], checkpoint: Path, seed: int, several_seeds: bool) -> str:
    """Of the folder with results: what is given, or what is unusual about it."""
    if settings["name"] is not None:
        parts = [settings["name"], *([f"seed_{seed}"] if several_seeds else [])]
    elif settings["scenes"] is not None:
        parts = [settings["policy"], "recorded"]
    else:
        usual = (settings["split"], seed) == ("test", 0)
        parts = [settings["policy"], *([] if usual else [settings["split"], str(seed)])]
    if settings["name"] is None:
        parts += settings["env"].get("unseen", [])
        parts += ["variations"] if settings["variations"] else []
    return "_".join([*parts, *([checkpoint.name] if settings["checkpoints"] is not None else [])])


def _scenes(settings: dict[str, Any], seed: int) -> str:
    """Who plays what, in words."""
    recorded, unseen = settings["scenes"], settings["env"].get("unseen", [])
    played = f"scenes of {recorded}" if recorded else f"{settings['split']} scenes, seed {seed}"
    return ", ".join([f"{settings['policy']} on {played}", *unseen])


def _measure_offline(settings: dict[str, Any], checkpoints: list[Path]) -> None:
    """Errors on recorded episodes, of each checkpoint."""
    policy, device = settings["policy"], find_device(settings["device"])
    if policy in WEIGHTLESS:
        raise InputError(f"policy={policy} has nothing to say about recorded episodes: leave out data=")
    torch.set_num_threads(usable_cores())
    for checkpoint in checkpoints:
        name = settings["name"] or ("offline" if policy == "trained" else f"offline_{policy}")
        name = name if settings["checkpoints"] is None else f"{name}_{checkpoint.name}"
        renderer = SceneRenderer.load(checkpoint, device) if policy == "trained" else None
        agent = renderer.agent if renderer else Agent.load(checkpoint, policy == "untrained", device)
        run_offline(agent, settings, run_folder(checkpoint) / name, renderer)


def _check_worlds(settings: dict[str, Any]) -> dict[str, list[int]] | None:
    """Make every task's world once: a wrong name should show now, not after the tasks before it. The variations of each
    task, None for all."""
    given = settings["variations"]
    for task in given if isinstance(given, Mapping) else ():
        choose(task, settings["tasks"], "task in variations")
    chosen = {}
    for task in settings["tasks"]:
        with make_environment(settings["env"], task) as environment:
            if settings["scenes"] is not None:
                _check_scenes(environment, settings)
            chosen[task] = choose_variations(given, task, environment.variation_count())
    return {task: numbers for task, numbers in chosen.items() if numbers is not None} or None


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


def _check_scenes(environment: Environment, settings: dict[str, Any]) -> None:
    """Whether the environment can go back to recorded scenes, and enough of them were recorded.

    Raises:
        InputError: one of these is not so.
    """
    if type(environment).reset_to is Environment.reset_to:
        raise InputError(
            f"scenes={settings['scenes']}: {type(environment).__name__} cannot go back to recorded scenes; give "
            "env=rlbench, or leave it out"
        )
    found = len(find_episodes(settings["scenes"], environment.task))
    if found < settings["episodes"]:
        raise InputError(
            f"scenes={settings['scenes']} holds {found} episodes of {environment.task}: give episodes={found} or fewer"
        )


def seen_as_in_training(env: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    """The environment's config with the cameras and the picture size that the agent was trained with; without an agent,
    as it is but for what is null.

    Raises:
        InputError: others were asked for.
    """
    if "cameras" not in meta:
        return {key: value for key, value in env.items() if value is not None}
    trained = {"cameras": meta["cameras"], "image_size": meta["image_size"][0]}
    for key, value in trained.items():
        if env[key] is not None and env[key] != value:
            raise InputError(f"env.{key}={env[key]}: the agent was trained with {value}; leave it out")
    return env | trained
