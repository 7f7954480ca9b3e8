"""`manifield replay`: a policy looks at what a robot went through, in a bag, and says what it would have done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from agents.actions import rotation_error
from agents.agent import Agent
from agents.checkpoint import find_checkpoint, load_meta
from agents.evaluation import seen_as_in_training
from agents.report.markup import legend, table
from agents.report.page import small_page
from agents.report.pictures import PREDICTED, data_uri, draw_keyframe, film_strip, overlay_heat, png_bytes, upscale
from agents.report.summary import align
from agents.tensors import Prediction
from demos.bags.bag import Bag
from demos.bags.convert import Demonstration, demonstrate, describe
from envs.interface import Action, Observation
from envs.ros.config import RosConfig
from envs.ros.connect import robot_config
from manifield.command import run_folder
from manifield.devices import find_device
from manifield.errors import InputError, within
from manifield.files import write_whole
from manifield.progress import Progress

HAPPENED = (255, 196, 0)  # what the robot did, beside `PREDICTED`
COLUMNS = ("at", "goal x", "y", "z", "gripper", "contact", "off by", "turned", "voxels", "gripper then")


@dataclass(frozen=True)
class Moment:
    """One look. number: key-frames before it. time: seconds into the bag. action: what the policy would do.

    position, quaternion, gripper_open: what happened instead. voxels: the largest distance along an axis, in cells of
    the policy's finest look.
    """

    number: int
    time: float
    observation: Observation
    action: Action
    position: np.ndarray
    quaternion: np.ndarray
    gripper_open: bool
    voxels: float
    strip: np.ndarray

    @property
    def distance(self) -> float:
        """Metres between what it would do and what happened."""
        return float(np.linalg.norm(self.action.position - self.position))

    @property
    def turn(self) -> float:
        """Radians between them."""
        return float(rotation_error(self.action.quaternion, self.quaternion))

    def cells(self) -> list[str]:
        """For a table."""
        x, y, z = self.action.position
        return [
            f"{self.time:.1f} s",
            f"{x:.3f}",
            f"{y:.3f}",
            f"{z:.3f}",
            "open" if self.action.gripper_open else "closed",
            "yes" if self.action.ignore_collisions else "no",
            f"{100 * self.distance:.2f} cm",
            f"{np.degrees(self.turn):.1f} °",
            f"{self.voxels:.1f}",
            "open" if self.gripper_open else "closed",
        ]


def run(config: DictConfig) -> int:
    """Replay what `configs/replay.yaml` names: a table, and a page RUN/replays/BAG.html; returns the exit code."""
    within(config, enlarge=(1, 8))
    checkpoint = find_checkpoint(Path(config.run))
    settings: dict[str, Any] = OmegaConf.to_container(config.env, resolve=True)  # type: ignore[assignment]
    robot = robot_config(seen_as_in_training(settings, load_meta(checkpoint)))
    agent = Agent.load(checkpoint, device=find_device(config.device))
    with Bag(config.bag) as bag:
        demonstration = demonstrate(bag, robot, config.take)
        instruction = config.instruction or next((x for x in bag.facts.get("instruction", "").split("\n") if x), None)
    if not instruction:
        raise InputError(f"{config.bag}: says no instruction: give instruction='open the top drawer'")
    print(f"{config.bag}: {describe(demonstration)}\n“{instruction}”", flush=True)
    moments = replay(agent, demonstration, instruction, config.enlarge)
    print(align([["key-frame", *COLUMNS], *([str(m.number + 1), *m.cells()] for m in moments)]))
    page = _write_page(run_folder(Path(config.run)), config, robot, instruction, moments)
    print(f"\npage: {page.resolve()}")
    return 0


def replay(agent: Agent, demonstration: Demonstration, instruction: str, enlarge: int = 2) -> list[Moment]:
    """What the agent would do at the beginning and after every key-frame, beside what happened next."""
    frames = demonstration.observations
    moments = []
    with Progress("replay", len(demonstration.keyframes), "key-frames") as progress:
        sources = [0, *demonstration.keyframes[:-1]]
        for number, (source, target) in enumerate(zip(sources, demonstration.keyframes, strict=True)):
            observation, then = frames[source], frames[target]
            action, prediction = agent.act(observation, instruction, number)
            position, quaternion = then.gripper_pose[:3], then.gripper_pose[3:]
            apart = np.abs(action.position - position) / cell_size(prediction)
            moments.append(
                Moment(
                    number=number,
                    time=demonstration.times[source],
                    observation=observation,
                    action=action,
                    position=position,
                    quaternion=quaternion,
                    gripper_open=then.gripper_open > 0.5,
                    voxels=float(apart.max()),
                    strip=_strip(observation, action, prediction, then, enlarge),
                )
            )
            progress.advance()
    return moments


def cell_size(prediction: Prediction) -> np.ndarray:
    """[3] metres: edges of a cell of the finest look."""
    low, high = (corners[-1][0].cpu().numpy() for corners in (prediction.low, prediction.high))
    return (high - low) / np.array(prediction.q[-1][0].shape)


def _strip(
    observation: Observation, action: Action, prediction: Prediction, then: Observation, enlarge: int
) -> np.ndarray:
    """Every camera's picture with the coarse Q-map, what the policy would do and what happened."""
    q = prediction.q[0][0]
    heat = q.flatten().softmax(0).view(q.shape).cpu().numpy()
    low, high = (corners[0][0].cpu().numpy() for corners in (prediction.low, prediction.high))
    pictures = []
    for view in observation.cameras.values():
        rgb = overlay_heat(upscale(view.rgb, enlarge), view, heat, low, high)
        happened = then.gripper_pose
        rgb = draw_keyframe(rgb, view, happened[:3], happened[3:], then.gripper_open > 0.5, HAPPENED)
        pictures.append(draw_keyframe(rgb, view, action.position, action.quaternion, action.gripper_open))
    return film_strip(pictures, list(observation.cameras))


def _write_page(
    folder: Path, config: DictConfig, robot: RosConfig, instruction: str, moments: Sequence[Moment]
) -> Path:
    name = Path(config.bag).resolve().stem
    target = folder / "replays" / f"{name}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = [[f"key-frame {m.number + 1}", *m.cells()] for m in moments]
    colours = legend([(f"rgb{PREDICTED}", "what the policy would do"), (f"rgb{HAPPENED}", "what happened")])
    figures = "\n".join(
        f'<figure><figcaption>key-frame {m.number + 1} <span class="note">at {m.time:.1f} s, '
        f"{100 * m.distance:.2f} cm and {np.degrees(m.turn):.1f}° apart</span></figcaption>"
        f'<img alt="" style="max-width:100%;height:auto" src="{data_uri(png_bytes(m.strip, 256))}"></figure>'
        for m in moments
    )
    parts = [("What it would do", table(["", *COLUMNS], rows)), ("Pictures", colours + figures)]
    subtitle = f"“{instruction}” · {', '.join(robot.cameras)} · replayed by {config.run}"
    write_whole(target, small_page(name, subtitle, parts))
    facts = [
        {
            "time": m.time,
            "position": m.action.position.tolist(),
            "quaternion": m.action.quaternion.tolist(),
            "gripper_open": m.action.gripper_open,
            "ignore_collisions": m.action.ignore_collisions,
            "distance": m.distance,
            "turn": m.turn,
            "voxels": m.voxels,
        }
        for m in moments
    ]
    write_whole(target.with_suffix(".json"), json.dumps({"instruction": instruction, "moments": facts}, indent=1))
    return target
