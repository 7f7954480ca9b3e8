"""A training step of the papers' presets at 100³ cells, batch 1: `python -m tests.benchmarks.benchmark_step`.

One scene of the embedded simulator, words as CLIP would give them (random), a field view with a random feature map of
512 channels. Each case runs in a process of its own on one thread, for its peak memory, and is measured the second time
that it runs there. "plain" makes the upsampling before it is convolved and keeps whole softmaxes, as published.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import agents.decoders
from agents.batching import Batcher
from agents.config import AgentConfig
from agents.parallel import team
from agents.policy import Policy
from agents.scene_field import SceneField, SceneFieldConfig
from agents.trainer import Learner, Trainer
from demos.dataset import Sample, make_sample
from demos.transitions import Transition
from envs.mujoco.environment import MujocoEnvironment
from manifield.configuration import compose
from perception.convolution import Convolution
from perception.field.views import TargetView
from perception.language import MAX_TOKENS, LanguageEncoder
from perception.upsampling import UpsampledConvolution

CASES = (
    "peract step float32",
    "peract step float32 plain",
    "gnfactor forward float32",
    "gnfactor forward float32 plain",
    "gnfactor step float32",
    "gnfactor step float32 plain",
    "gnfactor step bf16",
    "gnfactor_fast step bf16",
    "gnfactor_fast step float32",
)


class Words(LanguageEncoder):
    """Random token features of CLIP's size."""

    width, identity = 512, "random"

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.random.default_rng(0).normal(size=(MAX_TOKENS, 512)).astype(np.float32) for _ in texts]


def scene(agent: AgentConfig, field: SceneFieldConfig | None) -> Sample:
    """The first moment of an episode."""
    world = MujocoEnvironment("open_drawer", (*(agent.cameras or ()), "overhead"))
    observation = world.reset(0, 0).observation
    goal = Transition(Path("."), 0, 0, 1, 0, 1, 0.0, 1.0, observation.gripper_pose, True, False, True)
    sample = make_sample(observation, 0.0, agent, ["open the drawer"], transition=goal)
    feature = np.random.default_rng(0).normal(size=(16, 16, 512)).astype(np.float32)
    return replace(sample, views=[TargetView(observation.cameras["overhead"], feature)] if field else ())


class PlainUpsampled(UpsampledConvolution):
    """Upsampled first, convolved then."""

    def forward(self, volume: Tensor) -> Tensor:
        fine = F.interpolate(volume, scale_factor=len(self.taps), mode="trilinear", align_corners=False)
        return F.conv3d(F.pad(fine, [2] * 6, mode="replicate"), self.weight, self.bias)


class PlainConvolution(Convolution):
    """The volumes side by side, their borders made, every product by itself."""

    def forward(self, *volumes: Tensor) -> Tensor:
        return F.conv3d(F.pad(torch.cat(volumes, dim=1), [1] * 6, mode="replicate"), self.weight, self.bias)


def plain_pool(volume: Tensor) -> tuple[Tensor, Tensor]:
    """A whole softmax."""
    axes = [torch.linspace(-1, 1, n) for n in volume.shape[2:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
    share = (volume.float().flatten(2) / agents.decoders.TEMPERATURE).softmax(dim=2)
    return (share @ places).flatten(1), volume.amax(dim=(2, 3, 4))


def measure(case: str) -> None:
    """Run a case; prints its cpu seconds and peak memory."""
    preset, part, precision, *plain = case.split()
    torch.set_num_threads(1)
    if plain:
        agents.decoders.UpsampledConvolution = PlainUpsampled  # type: ignore[misc]
        agents.decoders.place_and_peak = plain_pool
        agents.decoders.Convolution = PlainConvolution  # type: ignore[misc]
    words = [f"agent={preset}", f"precision={precision}", "batch=1", "threads=1", "data=none"]
    config = compose("train", [*words, *(["field=gnfactor"] * (preset != "peract"))])
    settings = OmegaConf.to_container(config)
    assert isinstance(settings, dict)
    agent, field = AgentConfig.from_mapping(settings["agent"]), SceneFieldConfig.from_mapping(settings.get("field"))
    policy, sample, encoder = Policy(agent, Words.width), scene(agent, field), Words()
    learner = Learner(policy, None if field is None else SceneField(field, agent, Words.width, 512, (128, 128)))
    with team(config, no_work) as fabric:
        trainer = Trainer(config, fabric, learner, Batcher(agent, encoder), None)  # type: ignore[arg-type]
        for step in range(2):
            begin = time.process_time()
            if part == "step":
                losses, *_ = trainer.step([sample], step)
                assert torch.isfinite(losses["loss"])
            else:
                with torch.no_grad():
                    policy.eval()(trainer.batcher.batch([sample], ["open the drawer"]))
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 2**20
    print(json.dumps({"seconds": time.process_time() - begin, "peak": peak}))


def no_work(config: DictConfig, fabric: object) -> None:
    """There is one process only."""


def main(cases: tuple[str, ...]) -> None:
    results: dict[str, dict[str, float]] = {}
    for case in cases:
        command = [sys.executable, "-m", "tests.benchmarks.benchmark_step", "--case", case]
        results[case] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )
        base = results.get(case.removesuffix(" plain"), results[case])
        seconds, peak = results[case]["seconds"], results[case]["peak"]
        print(f"{case:32} {seconds:7.1f} cpu s {seconds / base['seconds']:5.1f} x   {peak:5.1f} GiB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        measure(sys.argv[2])
    else:
        main(tuple(c for c in CASES if all(word in c.split() for word in sys.argv[1:])))
