"""`manifield deploy`: a trained policy on a real arm (or the rehearsal arm), one key-frame after the other.

The environment's safety layer checks and carries out; this file asks the person in front of it and tells what happens.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from agents.agent import Agent
from agents.checkpoint import find_checkpoint, load_meta
from agents.evaluation import seen_as_in_training
from demos.writer import write_episode
from envs.interface import Action, Observation
from envs.make import make_environment
from envs.ros.arm import RosEnvironment
from envs.ros.checks import Refusal
from envs.ros.safety import Proposal
from envs.ros.sensing import SensorFault
from envs.ros.transport import NotConnected
from manifield.devices import find_device
from manifield.errors import InputError, within

RESET_WORD = "reset"


def run(config: DictConfig) -> int:
    """Deploy as `configs/deploy.yaml` says; returns 0 when the policy has acted to its end, 3 when it was stopped."""
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    if config.keep is not None and Path(config.keep).exists():
        raise InputError(f"keep={config.keep} is there already: choose another folder")
    checkpoint = find_checkpoint(Path(config.run))
    meta = load_meta(checkpoint)
    settings["max_actions"] = settings["max_actions"] or meta["agent"]["horizon"]
    within(settings, max_actions=(1, 1000), viewer=(0, 65535))
    env = seen_as_in_training(settings["env"], meta)
    asks = env["limits"]["confirm"]
    if asks and not sys.stdin.isatty():
        raise InputError("env.limits.confirm=true asks before every motion, and there is no terminal to ask at")
    agent = Agent.load(checkpoint, device=find_device(config.device))
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    instruction = settings["instruction"] or _ask_for_instruction(meta)
    page = None
    if settings["viewer"]:
        from agents.deployment_page import Page

        page = Page(settings["host"], settings["viewer"])
        print(f"the scene and every goal: {page.url}", flush=True)

    def confirm(proposal: Proposal) -> bool:
        if page and isinstance(environment, RosEnvironment):
            page.show_proposal(proposal, environment.tool_path(proposal.path))
        return _yes(f"  go {proposal.words}? [y/N] ")

    environment = make_environment(env, instruction, confirm=confirm if asks else None)
    if not isinstance(environment, RosEnvironment):
        raise InputError("deploy is for real arms: env=ros, env=ros_xarm")
    try:
        with environment:
            return Deployment(environment, agent, instruction, page).play(settings["max_actions"], settings["keep"])
    except NotConnected as error:
        raise InputError(str(error)) from None
    finally:
        if page:
            page.close()


class Deployment:
    """One instruction carried out."""

    def __init__(self, environment: RosEnvironment, agent: Agent, instruction: str, page: Any = None) -> None:
        self.environment, self.agent, self.instruction, self.page = environment, agent, instruction, page

    def play(self, max_actions: int, keep: str | None = None) -> int:
        """Act until the end, a person's no, or a stop that is not reset."""
        seen: list[Observation] = []
        try:
            return self._play(max_actions, seen if keep else None)
        finally:
            if keep and len(seen) > 1:
                write_episode(Path(keep), seen, [self.instruction], 0, {"instruction": self.instruction})
                print(f"kept: manifield view {keep}")

    def _play(self, max_actions: int, seen: list[Observation] | None) -> int:
        env = self.environment
        env.connect()
        for number in range(max_actions):
            try:
                observation = env.observe()
            except SensorFault as error:
                print(f"the sensors are not sound: {error}", flush=True)
                return 3
            if seen is not None:
                seen.append(observation)
            action, _ = self.agent.act(observation, self.instruction, number)
            print(f"{number + 1}: {describe(action)}", flush=True)
            if self.page:
                self.page.show(observation, action)
            outcome = env.step(action, None if seen is None else seen.append)
            if outcome.success:
                print("the rehearsal arm says: solved", flush=True)
                return 0
            if outcome.failure is None:
                continue
            print(f"  {outcome.failure}", flush=True)
            if env.guard.latched is not None and not self._reset():
                return 3
            if env.guard.latched is None and not _yes("  look and decide again? [y/N] "):
                return 3
        return 0

    def _reset(self) -> bool:
        """A person looks at the robot, and lets it go on or not."""
        if not sys.stdin.isatty():
            return False
        word = input(f"  the arm is stopped. Look at it; '{RESET_WORD}' lets it move again, anything else ends: ")
        if word.strip() != RESET_WORD:
            return False
        try:
            self.environment.reset_stop("a person at the terminal")
        except Refusal as refusal:
            print(f"  {refusal}", flush=True)
            return False
        return True


def describe(action: Action) -> str:
    """An action in words."""
    x, y, z = np.round(action.position, 3)
    touch = ", may touch" if action.ignore_collisions else ""
    return f"tool to ({x:.3f}, {y:.3f}, {z:.3f}) m, then {'open' if action.gripper_open else 'close'}{touch}"


def _ask_for_instruction(meta: dict[str, Any]) -> str:
    if not sys.stdin.isatty():
        raise InputError("give instruction=… (in words), or a terminal to ask at")
    print(f"trained on: {', '.join(meta['tasks'])}")
    return input("what shall the arm do? ").strip() or _ask_for_instruction(meta)


def _yes(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(question).strip().lower() in ("y", "yes")
