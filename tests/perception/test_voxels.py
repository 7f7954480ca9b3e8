"""Voxel grids: analytic ones, and PerAct's own of a real frame."""

import numpy as np
import pytest
import torch

from demos.store import open_episode
from envs.interface import CameraView, Observation
from manifield.errors import InputError
from perception.cameras import back_project, intrinsics_from_fov, look_at
from perception.voxels import cell_centres, cell_index, fuse, peract_grid, sample_volume, scatter_mean

LOW, HIGH = np.array([-0.3, -0.5, 0.6]), np.array([0.7, 0.5, 1.6])


def boxes(*rows):
    return torch.from_numpy(np.array(rows, np.float32))


@pytest.mark.parametrize("shape", [(3, 4, 5), (7, 2, 9), (1, 1, 1)])
def test_point_lands_in_its_cell(shape):
    """Non-cubic boxes and shapes: the centre of cell (i, j, k) is found in cell (i, j, k), on every axis."""
    low, high = boxes([-1, 0, 2], [0, 0, 0]), boxes([1, 3, 2.5], [1, 2, 3])
    centres = cell_centres(low, high, shape)
    for sample in range(2):
        points = centres[sample].flatten(1).T
        index, inside = cell_index(points, torch.full((len(points),), sample), low, high, shape)
        assert inside.all()
        expected = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), -1).view(-1, 3)
        assert (index == expected).all()


def test_scatter_mean_averages_within_a_sample_only():
    low, high = boxes([0, 0, 0], [0, 0, 0]), boxes([1, 1, 1], [1, 1, 1])
    points = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.1, 0.1, 0.1], [1.5, 0, 0]])
    features = torch.tensor([[1.0], [3.0], [10.0], [99.0]], requires_grad=True)
    mean, count = scatter_mean(points, features, torch.tensor([0, 0, 1, 1]), low, high, (2, 2, 2))
    assert mean[0, 0, 0, 0, 0] == 2 and mean[1, 0, 0, 0, 0] == 10
    assert count.sum() == 3  # the point outside the box counts nowhere
    mean.sum().backward()
    assert features.grad.flatten().tolist() == [0.5, 0.5, 1, 0]


@pytest.mark.parametrize("frame", [0, 70])
def test_agrees_with_peract_on_a_real_frame(real_data, frame):
    """Same occupied cells and same 10 channels as PerAct's own code gives."""
    reference = np.load(real_data / "reference" / f"voxel_ep0_f{frame}.npz")
    episode = open_episode(real_data / "rlbench/open_drawer/all_variations/episodes/episode0")
    observation = episode.observation(frame, [str(c) for c in reference["cams"]])
    points, colours = fuse(observation, LOW, HIGH)
    grid = peract_grid(
        torch.from_numpy(points),
        torch.from_numpy(colours),
        torch.zeros(len(points), dtype=torch.int64),
        boxes(LOW),
        boxes(HIGH),
        (100, 100, 100),
    )[0]
    expected = torch.zeros(10, 100, 100, 100)
    i, j, k = reference["index"].T.astype(int)
    expected[:, i, j, k] = torch.from_numpy(reference["value"]).T
    occupied, wanted = grid[9] > 0, expected[9] > 0
    assert torch.equal(occupied, wanted)
    assert torch.allclose(grid[:, wanted], expected[:, wanted], atol=1e-5)


def view(depth):
    return CameraView(
        rgb=np.zeros((8, 8, 3), np.uint8),
        depth=np.full((8, 8), depth, np.float32),
        intrinsics=intrinsics_from_fov(0.7, 8, 8),
        T_world_camera=look_at(np.array([0.2, 0, 2.0]), np.array([0.2, 0, 0])),
    )


def observation(**views):
    zeros = np.zeros(7)
    return Observation(views, zeros, zeros, zeros, 1.0, np.zeros(2))


def test_fuse_crops_and_thins():
    seen = observation(front=view(1.2), overhead=view(9.0))
    points, colours = fuse(seen, LOW, HIGH)
    assert len(points) == len(colours) == 64  # the second camera sees only what lies outside
    thinned, _ = fuse(seen, LOW, HIGH, spacing=0.5)
    assert 1 <= len(thinned) < 10
    inside = back_project(seen.cameras["front"].depth, view(1.2).intrinsics, view(1.2).T_world_camera)
    assert {tuple(p) for p in thinned} <= {tuple(p) for p in inside.reshape(-1, 3)}


def test_fuse_of_nothing_is_empty():
    assert len(fuse(observation(front=view(9.0)), LOW, HIGH, spacing=0.01)[0]) == 0


def test_missing_camera_is_named():
    with pytest.raises(InputError, match="'wrist'.*front"):
        fuse(observation(front=view(1.0)), LOW, HIGH, ["wrist"])


def test_sample_volume_reads_what_was_written_at_a_world_point():
    """Regression for the published defect 1 (axes swapped): a cell's value is read back at its own centre, in boxes and
    shapes that differ along every axis, and a field that is linear in x, y, z is read exactly between centres."""
    low, high, shape = boxes([-0.3, -0.5, 0.6], [0, 1, 2]), boxes([0.7, 0.7, 1.0], [3, 2, 4]), (5, 4, 7)
    centres = cell_centres(low, high, shape)
    volume = torch.randn(2, 3, *shape)
    read = sample_volume(volume, centres.flatten(2).transpose(1, 2), low, high)
    assert torch.allclose(read, volume.flatten(2), atol=1e-5)
    inner = low[:, None] + (high - low)[:, None] * (0.2 + 0.6 * torch.rand(2, 20, 3))
    assert torch.allclose(sample_volume(centres, inner, low, high), inner.transpose(1, 2), atol=1e-5)


def test_sample_volume_outside_the_box_is_zero():
    read = sample_volume(
        torch.ones(1, 1, 4, 4, 4), torch.tensor([[[2.0, 0.5, 0.5]]]), boxes([0, 0, 0]), boxes([1, 1, 1])
    )
    assert read.item() == 0
