"""PerAct's own loader reads a data set that `manifield collect` wrote, and PerAct's own code trains on it.

Not a test of `make test`: it needs the peers' sources, which are not part of this project, and an environment with the
old packages that they want. Nothing of Manifield is imported here; what is exchanged is the files.

    manifield collect data=data/peract 'tasks=[open_drawer,push_buttons]' episodes=2 depth_bits=24 \\
        'env.cameras=[front,left_shoulder,right_shoulder,wrist,overhead]'
    mkdir peers && cd peers
    git clone https://github.com/peract/peract && git clone https://github.com/stepjam/PyRep
    git clone -b peract https://github.com/MohitShridhar/YARR && git clone -b peract https://github.com/MohitShridhar/RLBench
    git clone https://github.com/facebookresearch/pytorch3d && cd ..
    python3.11 -m venv peract-env && . peract-env/bin/activate
    pip install -r tests/compatibility/requirements-peract.txt
    python tests/compatibility/peract_trains_on_ours.py --peers peers --data data/peract --steps 2

Stand-ins, each for what cannot be had everywhere, and none for anything that reads or learns from the data:

    CoppeliaSim's library     PyRep's binding to it is an empty module: nothing that is called here reaches it
    CLIP's weights            PerAct's own CLIP class, of RN50's sizes, with random weights
    a GPU                     PyTorch's DDP is told no device number, which it only takes for GPUs
    PyTorch3D's compiled part its sources are on the path: PerAct takes its transforms only, which are Python
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

PEERS = ("pytorch3d", "peract", "YARR", "RLBench", "PyRep")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a step of PerAct on a data set written by manifield collect.")
    parser.add_argument("--peers", type=Path, required=True, help="folder with peract, YARR, RLBench and PyRep")
    parser.add_argument("--data", type=Path, required=True, help="folder that manifield collect wrote, five cameras")
    parser.add_argument("--demos", type=int, default=2, help="demonstrations of each task")
    parser.add_argument("--voxels", type=int, default=100, help="cells along an edge; a multiple of 5")
    parser.add_argument("--steps", type=int, default=1, help="updates of the weights")
    parser.add_argument("--batch", type=int, default=1, help="samples an update")
    options = parser.parse_args()
    find_peers(options.peers)
    declare_operators()
    torch.manual_seed(0)
    np.random.seed(0)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tempfile.mkdtemp()}/group", rank=0, world_size=1)
    tasks = sorted(path.parent.name for path in options.data.glob("*/all_variations"))
    if not tasks:
        sys.exit(f"{options.data}: no TASK/all_variations in it")
    config = read_config(options, tasks)
    with tempfile.TemporaryDirectory() as folder:
        replay = fill(config, options, tasks, Path(folder))
        train(config, replay, options.steps)


def find_peers(folder: Path) -> None:
    """Put the peers on the path, and an empty module where PyRep's binding to the simulator would be."""
    for name in PEERS:
        if not (folder / name).is_dir():
            sys.exit(f"{folder / name}: no such folder; the docstring of this script says where it comes from")
        sys.path.insert(0, str(folder.resolve() / name))
    binding: Any = types.ModuleType("pyrep.backend._sim_cffi")
    binding.ffi, binding.lib = types.SimpleNamespace(NULL=None), types.SimpleNamespace()
    sys.modules[binding.__name__] = binding


def declare_operators() -> None:
    """Declare two operators, without which torchvision's build for CUDA cannot be imported beside PyTorch's for CPUs.

    PerAct imports its picture transforms only.
    """
    if importlib.util.find_spec("torchvision") and not torch.version.cuda:
        for operator in ("nms", "qnms"):
            OPERATORS.append(torch.library.Library("torchvision", "FRAGMENT"))
            OPERATORS[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


OPERATORS: list[torch.library.Library] = []  # a declaration lasts as long as its object


def read_config(options: argparse.Namespace, tasks: list[str]) -> Any:
    """PerAct's own config files, with the tasks and the sizes asked for."""
    from omegaconf import OmegaConf

    conf = options.peers / "peract" / "conf"
    config = OmegaConf.load(conf / "config.yaml")
    config.method = OmegaConf.load(conf / "method" / "PERACT_BC.yaml")
    config.rlbench.tasks, config.rlbench.demos = tasks, options.demos
    config.rlbench.demo_path = str(options.data)
    config.replay.batch_size, config.method.voxel_sizes = options.batch, [options.voxels]
    return config


def random_clip() -> torch.nn.Module:
    """PerAct's copy of CLIP in the sizes of RN50, without its weights."""
    from helpers.clip.core.clip import CLIP

    return CLIP(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12).eval()


def fill(config: Any, options: argparse.Namespace, tasks: list[str], folder: Path) -> Any:
    """PerAct's replay buffer, filled by PerAct's loader."""
    from agents.peract_bc import launch_utils
    from helpers import demo_loading_utils
    from helpers.utils import create_obs_config
    from rlbench.utils import get_stored_demos

    cameras, resolution = list(config.rlbench.cameras), list(config.rlbench.camera_resolution)
    observing = create_obs_config(cameras, resolution, config.method.name)
    replay = launch_utils.create_replay(
        config.replay.batch_size,
        config.replay.timesteps,
        config.replay.prioritisation,
        config.replay.task_uniform,
        str(folder),
        cameras,
        list(config.method.voxel_sizes),
        resolution,
    )
    clip = random_clip()
    for task in tasks:
        recorded = json.loads((options.data / task / "manifest.json").read_text())["episodes"]
        for number in range(options.demos):
            (demo,) = get_stored_demos(
                amount=1,
                image_paths=False,
                dataset_root=str(options.data),
                variation_number=-1,
                task_name=task,
                obs_config=observing,
                random_selection=False,
                from_episode_number=number,
            )
            found = [int(k) for k in demo_loading_utils.keypoint_discovery(demo)]
            ours = next(facts["keyframes"] for facts in recorded if facts["index"] == number)
            points = np.concatenate([getattr(demo[0], f"{camera}_point_cloud").reshape(-1, 3) for camera in cameras])
            low, high = np.split(np.array(config.rlbench.scene_bounds), 2)
            inside = ((points > low) & (points < high)).all(axis=1).mean()
            print(
                f"{task} {number}: {len(demo)} frames, variation {demo.variation_number}, "
                f"{demo[0].misc['descriptions'][0]!r}, key-frames {found} "
                f"({'as' if found == ours else 'NOT as'} recorded), {inside:.0%} of its points inside the bounds"
            )
            assert found == ours, ours
        begin, before = time.process_time(), int(replay.add_count)
        launch_utils.fill_replay(
            config,
            observing,
            0,
            replay,
            task,
            options.demos,
            config.method.demo_augmentation,
            config.method.demo_augmentation_every_n,
            cameras,
            config.rlbench.scene_bounds,
            config.method.voxel_sizes,
            config.method.bounds_offset,
            config.method.rotation_resolution,
            config.method.crop_augmentation,
            clip_model=clip,
            keypoint_method=config.method.keypoint_method,
        )
        added = int(replay.add_count) - before
        print(f"{task}: PerAct's loader put {added} entries into its replay, {time.process_time() - begin:.1f} cpu-s")
    return replay


def train(config: Any, replay: Any, steps: int) -> None:
    """Updates of PerAct's agent on batches from its replay."""
    from agents.peract_bc import launch_utils, qattention_peract_bc_agent
    from yarr.replay_buffer.wrappers.pytorch_replay_buffer import PyTorchReplayBuffer

    parallel = qattention_peract_bc_agent.DDP
    qattention_peract_bc_agent.DDP = lambda network, device_ids: parallel(network)
    agent = launch_utils.create_agent(config)
    agent.build(training=True, device=torch.device("cpu"))
    batches = iter(PyTorchReplayBuffer(replay, num_workers=0).dataset())
    for step in range(steps):
        batch = {name: value for name, value in next(batches).items() if isinstance(value, torch.Tensor)}
        begin = time.process_time()
        loss = float(agent.update(step, batch)["total_losses"].detach())
        assert np.isfinite(loss)
        print(f"step {step}: PerAct's loss {loss:.3f}, {time.process_time() - begin:.1f} cpu-s")
    shapes = {name: list(value.shape) for name, value in batch.items() if name.startswith(("front_", "low_dim"))}
    print(f"a batch: {shapes}")


if __name__ == "__main__":
    main()
