"""One episode of an evaluation: who acts, what is kept of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.agent import Agent
from agents.report.pictures import draw_keyframe, film_strip, overlay_heat, png_bytes, upscale
from agents.tensors import Prediction
from demos.store import find_episodes, open_episode
from demos.writer import episode_directory, write_episode
from envs.interface import Action, Environment, NoExpert, Observation
from envs.make import make_environment
from envs.rollout import rollout
from envs.seeds import episode_seed, episode_variation
from manifield.devices import find_device
from manifield.workers import Stopped

Job = tuple[str, int]  # task, episode's number


class Player:
    """Plays episodes one by one in this process, keeping agent and environments from one to the next.

    Args:
        settings: of `configs/evaluate.yaml`, with `checkpoint` and `env` filled in. out: folder for film strips.
    """

    def __init__(self, settings: dict[str, Any], out: Path) -> None:
        self.settings, self.out = settings, out
        self._agent: Agent | None = None
        self._environments: dict[str, Environment] = {}

    def __call__(self, job: Job, stopping: Callable[[], bool]) -> dict[str, Any]:
        """The episode as one line of episodes.jsonl tells of it."""
        task, index = job
        settings, policy = self.settings, self.settings["policy"]
        torch.set_num_threads(1)  # in every process alike, so that their number changes nothing
        if policy in ("trained", "untrained") and self._agent is None:
            device = find_device(settings["device"])
            self._agent = Agent.load(Path(settings["checkpoint"]), policy == "untrained", device)
        if task not in self._environments:
            self._environments[task] = make_environment(settings["env"], task)
        env = self._environments[task]
        seed = episode_seed(settings["split"], settings["seed"], task, index)
        variation = episode_variation(settings["split"], settings["seed"], task, index, env.variation_count())
        rng = np.random.default_rng([seed, 1])  # not the scene's own stream
        if settings["scenes"] is None:
            start = env.reset(seed, variation)
        else:
            start = env.reset_to(open_episode(find_episodes(settings["scenes"], task)[index]).scene)
            variation = start.variation
        instruction = start.descriptions[int(rng.integers(len(start.descriptions)))]
        choices = env.choices()
        frames: list[np.ndarray] = []
        captions: list[str] = []
        seconds: list[float] = []
        expert = env.expert() if policy == "expert" else None

        def act(observation: Observation, number: int) -> Action | None:
            if stopping():
                raise Stopped
            if expert is not None:
                try:
                    return next(expert, None)
                except NoExpert:
                    return None
            if self._agent is None:
                return _random_action(rng)
            begin = time.perf_counter()
            action, prediction = self._agent.act(observation, instruction, number)
            seconds.append(time.perf_counter() - begin)
            frames.append(_picture(observation, action, prediction))
            captions.append(f"{number + 1}: {'open' if action.gripper_open else 'closed'}")
            return action

        seen = [start.observation]
        played = rollout(env, start, act, settings["max_actions"], seen.append if settings["keep"] else None)
        right = None
        if choices is not None and len(choices.candidates) > 1 and played.actions:
            right = choices.chosen(played.actions[0].position) == choices.right
        strip = None
        if frames:
            frames.append(upscale(next(iter(env.observe().cameras.values())).rgb, 2))
            captions.append("success" if played.success else played.failure or "not solved")
            strip = f"strips/{task}_{index}.png"
            (self.out / strip).write_bytes(png_bytes(film_strip(frames, captions)))
        failure = None
        if not played.success:
            failure = "wrong object" if right is False else played.failure or "not solved in time"
        episode = {
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
        if settings["keep"]:
            goals = [
                [*a.position.tolist(), *a.quaternion.tolist(), float(a.gripper_open), float(a.ignore_collisions)]
                for a in played.actions
            ]
            directory = kept_episode(self.out, task, index)
            shutil.rmtree(directory, ignore_errors=True)  # of an evaluation that was killed before its log said so
            write_episode(directory, seen, start.descriptions, variation, episode | {"actions": goals})
        return episode

    def close(self) -> None:
        """Free the environments."""
        for environment in self._environments.values():
            environment.close()
        self._environments = {}


def kept_episode(out: Path, task: str, index: int) -> Path:
    """Folder in which an evaluation keeps an episode, in RLBench's format."""
    return episode_directory(out / "rollouts", task, index)


def _random_action(rng: np.random.Generator) -> Action:
    """A pose somewhere above the table, gripper down: what chance would do."""
    yaw = rng.uniform(-np.pi / 2, np.pi / 2)
    position = rng.uniform([0.0, -0.35, 0.77], [0.45, 0.35, 1.1])
    down = np.array([np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0])
    return Action(position, down, bool(rng.integers(2)), bool(rng.integers(2)))


def _picture(observation: Observation, action: Action, prediction: Prediction) -> np.ndarray:
    """The first camera's picture with the coarse Q-map as heat and the chosen key-frame drawn in, twice as large."""
    view = next(iter(observation.cameras.values()))
    q = prediction.q[0][0]
    heat = q.flatten().softmax(0).view(q.shape).cpu().numpy()
    low, high = (corners[0][0].cpu().numpy() for corners in (prediction.low, prediction.high))
    rgb = overlay_heat(upscale(view.rgb, 2), view, heat, low, high)
    return draw_keyframe(rgb, view, action.position, action.quaternion, action.gripper_open)
