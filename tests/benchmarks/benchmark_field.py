"""What the neural field costs at the paper's sizes: `python -m tests.benchmarks.benchmark_field`.

A volume of 100³ cells with 128 channels, 64 + 32 samples a ray, 5 blocks of width 512, 512 feature channels; a table
with three balls on it, which the field learns first, without haze (`field.lambda_empty`), so that empty space is known.
Each case runs in a process of its own, for its peak memory, and is measured the second time that it runs there. The
baselines do what the published code does: every ray from 0.1 to 4 m, float32, coarse samples asked for a second time
with the fine ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from agents.scene_field import SceneFieldConfig
from manifield.configuration import compose
from perception.cameras import intrinsics_from_fov, look_at
from perception.field.answers import Answers
from perception.field.field import FieldConfig, NeuralField
from perception.field.losses import field_losses
from perception.field.rays import Rays, make_rays, picture_pixels
from perception.field.told import Told
from perception.field.views import PixelTargets

LOW, HIGH = torch.tensor([[-0.3, -0.5, 0.6]]), torch.tensor([[0.7, 0.5, 1.6]])
CELLS, CHANNELS, FEATURES, TABLE = 100, 128, 512, 0.75
BALLS = torch.tensor([[0.2, -0.2, 0.85, 0.10], [0.3, 0.15, 0.83, 0.08], [0.05, 0.1, 0.95, 0.12]])
STEPS, RAYS, SIZE = 300, 512, 128
CASES = ("train", "train, published way", "view", "view, every sample", "view, published way")


def scene_volume() -> Tensor:
    """[1, 128, 100, 100, 100]: what is solid in the first channels, noise in the others."""
    torch.manual_seed(0)
    axes = [torch.linspace(float(a), float(b), CELLS) for a, b in zip(LOW[0], HIGH[0], strict=True)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    near = torch.stack([((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2).sqrt() - r for a, b, c, r in BALLS.tolist()])
    solid = torch.stack([(d < 0).float() for d in (*near, z - TABLE)])
    return torch.cat([solid, 0.1 * torch.randn(CHANNELS - len(solid), CELLS, CELLS, CELLS)])[None]


def look(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Colour and depth that rays of the true scene show, by geometry; depth 9 where they meet nothing."""
    depth = (TABLE - origins[..., 2]) / directions[..., 2]
    ground = origins + depth[..., None] * directions
    on_table = (depth > 0) & (ground >= LOW).all(-1) & (ground <= HIGH).all(-1)
    depth = torch.where(on_table, depth, torch.full_like(depth, 9.0))
    colour = torch.where(on_table[..., None], torch.tensor([0.6, 0.5, 0.4]), torch.tensor([0.5, 0.5, 0.5]))
    for number, (x, y, z, radius) in enumerate(BALLS.tolist()):
        offset = origins - torch.tensor([x, y, z])
        a, b = (directions**2).sum(-1), (directions * offset).sum(-1)
        square = b**2 - a * ((offset**2).sum(-1) - radius**2)
        first = (-b - square.clamp(min=0).sqrt()) / a
        hit = (square > 0) & (first > 0) & (first < depth)
        depth = torch.where(hit, first, depth)
        colour = torch.where(hit[..., None], torch.eye(3)[number], colour)
    return colour, depth


def camera_rays(number: int, count: int | None = None) -> tuple[Rays, PixelTargets]:
    """Rays of a camera before the table: `count` at random, or all of its pixels."""
    rng = np.random.default_rng(number)
    angle = rng.uniform(-1.2, 1.2)
    pose = look_at(np.array([0.2 + 1.2 * np.cos(angle), 1.2 * np.sin(angle), 1.6]), np.array([0.2, 0.0, 0.9]))
    pixels = picture_pixels(SIZE, SIZE)
    if count is not None:
        pixels = pixels[torch.from_numpy(rng.choice(len(pixels), count))]
    intrinsics = torch.from_numpy(intrinsics_from_fov(np.radians(50), SIZE, SIZE)).float().expand(1, len(pixels), 3, 3)
    poses = torch.from_numpy(pose).float().expand(1, len(pixels), 4, 4)
    rays = make_rays(pixels[None], intrinsics, poses, LOW, HIGH)
    colour, depth = look(rays.origins, rays.directions)
    feature = colour.repeat(1, 1, FEATURES // 3 + 1)[..., :FEATURES]
    return rays, PixelTargets(pixels[None], intrinsics, poses, colour, depth, feature)


def seen_points() -> tuple[Tensor, Tensor]:
    """Points that four cameras see in the box, as an agent knows them, and whose scene's they are."""
    found = []
    for number in range(4):
        rays, wanted = camera_rays(10_000 + number)
        found.append(rays.points(wanted.depth[..., None])[0, :, 0][(wanted.depth < rays.far)[0]])
    points = torch.cat(found)
    return points, torch.zeros(len(points), dtype=torch.long)


def published(rays: Rays) -> Rays:
    """The same rays, not clipped to the box."""
    near, far = torch.full_like(rays.near, 0.1), torch.full_like(rays.far, 4.0)
    return Rays(rays.origins, rays.directions, near, far, rays.unmoved)


def preset() -> FieldConfig:
    """`field=gnfactor`."""
    config = SceneFieldConfig.from_mapping(OmegaConf.to_container(compose("train", ["field=gnfactor"]).field))  # type: ignore[arg-type]
    assert config is not None
    return config


class Twice(NeuralField):
    """Asks for the coarse samples a second time beside the fine ones, as the published code does."""

    def _ask(self, told, rays, depths, first, wanted, answers):  # type: ignore[no-untyped-def]
        if first:
            again = depths.new_zeros(*depths.shape[:2], self.config.coarse) + rays.near[..., None]
            unused = Answers((*rays.near.shape, self.config.coarse))
            super()._ask(told, rays, again, 0, torch.ones_like(again, dtype=torch.bool), unused)
        return super()._ask(told, rays, depths, first, wanted, answers)


def train(folder: Path) -> None:
    """A field that knows the scene."""
    torch.manual_seed(0)
    field, volume = NeuralField(preset(), CHANNELS, FEATURES), scene_volume()
    optimiser = torch.optim.Adam(field.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        rays, wanted = camera_rays(step, 192)
        with torch.autocast("cpu", torch.bfloat16):
            told = Told([(volume, LOW, HIGH)], LOW, HIGH)
            seen = field(told, rays, generator, wanted.depth)
            haze = field.haze(told, rays, wanted.depth, 16, generator)
        losses = field_losses(seen, wanted, rays)
        optimiser.zero_grad()
        (losses["recon"] + losses["depth"] + 0.1 * losses["feat"] + 0.1 * haze).backward()
        optimiser.step()
    torch.save(field.state_dict(), folder / "field.pt")
    torch.save(volume, folder / "volume.pt")
    decibel = -10 * np.log10(losses["recon"].item() / 2)
    print(f"field trained for {STEPS} steps, PSNR {decibel:.1f} dB", flush=True)


def measure(case: str, folder: Path) -> None:
    """Run a case a second time; its cpu seconds, peak memory and, of a view, its colours go to the folder."""
    plain, everywhere = "published" in case, "every" in case or "published" in case
    config = replace(preset(), stop=0.0) if everywhere else preset()
    field = (Twice if plain else NeuralField)(config, CHANNELS, FEATURES)
    field.load_state_dict(torch.load(folder / "field.pt"))
    volume = torch.load(folder / "volume.pt").requires_grad_(case.startswith("train"))
    before = peak()
    with torch.autocast("cpu", torch.bfloat16, enabled=not plain):
        for count in (64, SIZE * SIZE):
            begin = time.process_time()
            told = Told([(volume, LOW, HIGH)], LOW, HIGH)
            if case.startswith("train"):
                volume.grad = None
                rays, wanted = camera_rays(1, RAYS)
                rays = published(rays) if plain else rays
                seen = field(told, rays, torch.Generator().manual_seed(0), wanted.depth)
                sum(field_losses(seen, wanted, rays).values()).backward()  # type: ignore[union-attr]
            else:
                rays, wanted = camera_rays(2)
                rays = published(rays) if plain else rays
                told = told if everywhere else replace(told, empty=field.survey(told, *seen_points()))
                portions = torch.arange(count).split(2048)
                with torch.no_grad():
                    seen = torch.cat([field(told, rays.take(some[None])).rgb for some in portions], dim=1)[0]
    seconds = time.process_time() - begin
    if not case.startswith("train"):
        np.save(folder / f"{case}.npy", seen.float().numpy())
    print(json.dumps({"seconds": seconds, "peak": peak(), "more": peak() - before}))


def peak() -> float:
    """Most memory of this process since its start, GiB. (getrusage counts its parent's, too.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        results = {}
        for case in CASES:
            command = [sys.executable, "-m", "tests.benchmarks.benchmark_field", case, name]
            results[case] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            base = results.get(f"{case.split(',')[0]}")
            ratio = results[case]["seconds"] / base["seconds"] if base else 1.0
            cost = f"{results[case]['seconds']:7.1f} cpu s {ratio:6.1f} x   peak {results[case]['peak']:5.1f} GiB"
            print(f"{case:24} {cost} ({results[case]['more']:.1f} GiB beside the volume)", flush=True)
        ours, every = (np.load(folder / f"{case}.npy") for case in CASES[2:4])
        _, truth = camera_rays(2)
        error = np.square(every - truth.rgb[0].numpy()).mean()
        print(f"ended early or not: colours differ by at most {np.abs(ours - every).max():.1e}", flush=True)
        print(f"PSNR of the view against the true scene: {-10 * np.log10(error):.1f} dB")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
