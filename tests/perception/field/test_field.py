"""The field: what it reads, what it renders, what it does not pay for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from demos.store import open_episode
from envs.mujoco.cameras import RLBENCH_CAMERAS
from perception.cameras import back_project, intrinsics_from_fov, look_at
from perception.field.answers import Answers
from perception.field.field import IN_FRONT, FieldConfig, NeuralField
from perception.field.network import DENSITY_SCALE
from perception.field.rays import Rays, make_rays, picture_pixels
from perception.field.rendering import ray_weights
from perception.field.sampling import around_depth, edges, importance, stratified
from perception.field.told import Told
from perception.voxels import cell_index, sample_volume, scatter_mean

LOW, HIGH = torch.tensor([[-0.3, -0.5, 0.6]]), torch.tensor([[0.7, 0.5, 1.6]])
SMALL = FieldConfig(width=16, blocks=2, injections=1, frequencies=2, coarse=32, fine=16, guided=4)


def rays_of(pose: np.ndarray, size: int, low: Tensor = LOW, high: Tensor = HIGH, fov: float = 0.7) -> Rays:
    pixels = picture_pixels(size, size)[None]
    intrinsics = torch.tensor(intrinsics_from_fov(fov, size, size)).float().expand(1, size * size, 3, 3)
    poses = torch.tensor(pose).float().expand(1, size * size, 4, 4)
    return make_rays(pixels, intrinsics, poses, low, high)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(10, 12, 15), (7, 20, 9)])
def test_a_voxel_written_at_a_point_is_read_back_there(axis, shape):
    """Regression (defect 1): the field read the volume with its axes swapped. Bounds that are no cube, too."""
    low, high = torch.tensor([[-0.3, -0.5, 0.7]]), torch.tensor([[0.7, 0.4, 1.3]])
    cell = (high - low) / torch.tensor(shape)
    point = low + cell * (torch.tensor([[3, 4, 5]]) + 0.5)
    volume, _ = scatter_mean(point, torch.ones(1, 1), torch.zeros(1, dtype=torch.long), low, high, shape)
    assert sample_volume(volume, point[None], low, high).item() == pytest.approx(1.0, abs=1e-5)
    step = torch.zeros(3)
    step[axis] = cell[0, axis]
    for sign in (-1, 1):
        assert sample_volume(volume, (point + sign * step)[None], low, high).item() == pytest.approx(0.0, abs=1e-5)
        assert sample_volume(volume, (point + sign * step / 2)[None], low, high).item() == pytest.approx(0.5, abs=1e-4)


def test_surface_points_of_a_real_frame_hit_occupied_cells(real_data):
    """Regression (defect 1): 2.7 % of them did with swapped axes."""
    episode = open_episode(real_data / "rlbench/open_drawer/all_variations/episodes/episode0")
    views = episode.observation(0).cameras
    points = torch.from_numpy(
        np.concatenate([back_project(v.depth, v.intrinsics, v.T_world_camera).reshape(-1, 3) for v in views.values()])
    )
    zeros = torch.zeros(len(points), dtype=torch.long)
    _, count = scatter_mean(points, torch.ones(len(points), 1), zeros, LOW, HIGH, (100, 100, 100))
    inside = cell_index(points, zeros, LOW, HIGH, (100, 100, 100))[1]
    occupied = (count > 0).float()
    read = sample_volume(occupied, points[inside][None], LOW, HIGH)[0, 0]
    assert (read > 0.01).float().mean() >= 0.93
    swapped = sample_volume(occupied.transpose(2, 4), points[inside][None], LOW, HIGH)[0, 0]
    assert (swapped > 0.01).float().mean() < 0.5


class Ball(torch.nn.Module):
    """In the network's place: a ball of a given density and colour at a place in the box's own coordinates."""

    def __init__(self, centre: Tensor, radius: float, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.centre, self.radius, self.low, self.high = centre, radius, low, high
        self.asked = 0

    def forward(self, points: Tensor, directions: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.asked += points[..., 0].numel()
        world = (points + 1) / 2 * (self.high - self.low) + self.low
        inside = (world - self.centre).norm(dim=-1) < self.radius
        colour = torch.tensor([1.0, 0.2, 0.1]).expand(*inside.shape, 3)
        return inside.float() * 5000.0, colour, torch.ones(*inside.shape, 16)


@pytest.mark.parametrize("camera", [name for name in RLBENCH_CAMERAS if name != "wrist"])
def test_a_ball_put_by_hand_has_its_depth_in_every_camera(camera):
    mount = RLBENCH_CAMERAS[camera]
    centre, radius = torch.tensor([0.2, 0.05, 1.0]), 0.15
    field = NeuralField(FieldConfig(width=16, coarse=64, fine=64), 1)
    field.network = Ball(centre, radius, LOW[0], HIGH[0])
    rays = rays_of(mount.T_body_camera, 48, fov=float(np.radians(mount.fov)))
    with torch.no_grad():
        seen = field(Told([(torch.zeros(1, 1, 2, 2, 2), LOW, HIGH)], LOW, HIGH), rays)
    # The nearest of the two depths at which a ray crosses the ball.
    a = (rays.directions**2).sum(-1)
    offset = rays.origins - centre
    b = (rays.directions * offset).sum(-1)
    square = b**2 - a * ((offset**2).sum(-1) - radius**2)
    true = (-b - square.clamp(min=0).sqrt()) / a
    # Rays that cross at least 6 cm of it: at the rim, two samples may miss what is thinner than their distance.
    clear = 2 * square.clamp(min=0).sqrt() / a.sqrt() > 0.06
    assert clear.sum() > 100
    voxel = 0.01
    assert ((seen.depth - true).abs()[clear]).max() < voxel / 2
    assert (seen.opacity[clear] > 0.999).all()
    assert seen.opacity[square < -0.01].max() < 1e-6
    torch.testing.assert_close(seen.rgb[clear], torch.tensor([1.0, 0.2, 0.1]).expand(int(clear.sum()), 3))


def test_rays_that_miss_cost_nothing_and_show_the_background():
    field = NeuralField(SMALL, 1, 5)
    field.network = Ball(torch.tensor([9.0, 9, 9]), 0.1, LOW[0], HIGH[0])
    up = rays_of(look_at(np.array([2.0, 0.0, 1.0]), np.array([3.0, 0.0, 1.5])), 8)
    assert not up.hits.any()
    told = Told([(torch.zeros(1, 1, 2, 2, 2), LOW, HIGH)], LOW, HIGH)
    seen = field(told, up)
    assert field.network.asked == 0
    behind, feature = field.background(up.unmoved, LOW[:, 2])
    torch.testing.assert_close(seen.rgb, behind)
    torch.testing.assert_close(seen.feature, feature)
    some = rays_of(look_at(np.array([2.0, 0.0, 1.9]), np.array([0.2, 0.0, 0.8])), 16, fov=1.6)
    assert 0 < some.hits.float().mean() < 1
    with torch.no_grad():  # (with gradients on, what holds nothing is sifted out first)
        field(told, some)
    assert field.network.asked == int(some.hits.sum()) * (SMALL.coarse + SMALL.fine)


@pytest.mark.parametrize("dense", [True, False])
def test_behind_what_is_opaque_nothing_is_asked(dense):
    """Rays that end early show the same within 1e-3, for less; two samples of a batch that end differently, too."""
    torch.manual_seed(0)
    thrifty, plain = NeuralField(SMALL, 3, 5), NeuralField(replace(SMALL, stop=0.0), 3, 5)
    plain.load_state_dict(thrifty.state_dict())
    pose = look_at(np.array([1.5, 0.2, 1.6]), np.array([0.2, 0.0, 1.1]))
    single = rays_of(pose, 12, fov=0.3)
    names = ("origins", "directions", "near", "far", "unmoved")
    rays = Rays(*(getattr(single, name).expand(2, *getattr(single, name).shape[1:]).contiguous() for name in names))
    low, high = LOW.expand(2, 3), HIGH.expand(2, 3)
    volume = torch.randn(2, 3, 5, 6, 7)
    if dense:  # one scene with a ball in it, whose front is all there is to see, and one that is empty
        centre = torch.tensor([[0.2, 0.0, 1.1], [9.0, 9.0, 9.0]])[:, None]
        for field in (thrifty, plain):
            field.network = Ball(centre, 0.2, LOW[0], HIGH[0])
    with torch.no_grad():
        ours, whole = (field(Told([(volume, low, high)], low, high), rays) for field in (thrifty, plain))
    for name in ("rgb", "opacity", "feature"):
        torch.testing.assert_close(getattr(ours, name), getattr(whole, name), atol=1e-3, rtol=0)
    seen = whole.opacity > 0.5
    torch.testing.assert_close(ours.depth[seen], whole.depth[seen], atol=1e-3, rtol=0)
    if dense:
        assert seen[0].float().mean() > 0.3 and not seen[1].any()
        one = rays.take(torch.arange(rays.near.shape[1])[None].expand(2, -1))
        alone = Rays(*(getattr(one, name)[:1] for name in names))
        before = [field.network.asked for field in (thrifty, plain)]
        with torch.no_grad():
            for field in (thrifty, plain):
                field.network.centre = centre[:1]
                field(Told([(volume[:1], LOW, HIGH)], LOW, HIGH), alone)
        asked = [field.network.asked - b for field, b in zip((thrifty, plain), before, strict=True)]
        assert asked[0] < 0.85 * asked[1]


def test_samples_of_different_boxes_stay_apart():
    """Each sample of a batch is rendered as it would be alone."""
    torch.manual_seed(0)
    field = NeuralField(replace(SMALL, stop=0.0), 3, 5)
    low = torch.tensor([[-0.3, -0.5, 0.6], [0.0, -0.2, 0.7]])
    high = torch.tensor([[0.7, 0.5, 1.6], [0.5, 0.3, 1.0]])
    volume = torch.randn(2, 3, 5, 6, 7)
    poses = [look_at(np.array(p), np.array([0.2, 0, 0.8])) for p in ([1.3, 0.0, 1.5], [0.2, 1.2, 1.2])]
    single = [rays_of(pose, 10, low[k : k + 1], high[k : k + 1]) for k, pose in enumerate(poses)]
    names = ("origins", "directions", "near", "far", "unmoved")
    both = Rays(*(torch.cat([getattr(r, name) for r in single]) for name in names))
    with torch.no_grad():
        together = field(Told([(volume, low, high)], low, high), both)
        for k, rays in enumerate(single):
            part = slice(k, k + 1)
            alone = field(Told([(volume[part], low[part], high[part])], low[part], high[part]), rays)
            for name in ("rgb", "coarse_rgb", "depth", "opacity", "feature"):
                torch.testing.assert_close(getattr(together, name)[part], getattr(alone, name), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("portions", [[70], [30, 40], [11]])
def test_features_are_those_of_the_plain_way(portions):
    """The head is applied to the composited trunk of those that were asked: the same as to every sample of a ray, of
    which the others hold nothing."""
    torch.manual_seed(0)
    shape, head = (2, 5, 14), torch.nn.Linear(16, 5)
    trunk, density = torch.randn(*shape, 16), torch.rand(shape)
    asked = torch.stack([torch.randperm(5 * 14)[: sum(portions)] for _ in range(2)])
    answers = Answers(shape)
    for place in asked.split(portions, dim=1):
        found = trunk.flatten(1, 2).gather(1, place[..., None].expand(-1, -1, 16))
        answers.add(place, density.flatten(1).gather(1, place), found[..., :3], found)
    known = torch.zeros(2, 70).scatter(1, asked, 1.0).view(shape)
    torch.testing.assert_close(answers.density(), density * known)
    weights = answers.density().softmax(-1) * known * 0.8
    plain = (weights[..., None] * head(trunk)).sum(dim=2)
    opacity = weights.sum(-1, keepdim=True)
    torch.testing.assert_close(
        torch.nn.functional.linear(answers.trunk(weights), head.weight) + opacity * head.bias, plain
    )
    torch.testing.assert_close(answers.colour(weights), (weights[..., None] * trunk[..., :3]).sum(dim=2))


def test_what_holds_nothing_is_not_learned_from_and_makes_no_difference():
    """Gradients of a field whose space is mostly empty: those of every sample, for less."""
    torch.manual_seed(0)
    plain = NeuralField(replace(SMALL, stop=0.0, empty=0.0), 3, 5)
    with torch.no_grad():  # densities that are high here and nearly 0 there
        plain.network.density.weight.mul_(300)
        plain.network.density.bias.fill_(-20.0)
        plain.network.inject[0].weight.mul_(10)
    thrifty = NeuralField(SMALL, 3, 5)
    thrifty.load_state_dict(plain.state_dict())
    rays = rays_of(look_at(np.array([1.5, 0.2, 1.6]), np.array([0.2, 0.0, 1.1])), 12)
    volume, gradients, learned = torch.randn(1, 3, 5, 6, 7), [], []
    for field in (plain, thrifty):
        ours = volume.clone().requires_grad_()
        rows = []
        field.network.density.register_forward_hook(
            lambda _, inputs, __, rows=rows: rows.append(inputs[0].shape[1] if torch.is_grad_enabled() else 0)
        )
        seen = field(Told([(ours, LOW, HIGH)], LOW, HIGH), rays, torch.Generator().manual_seed(0))
        depth = (seen.depth * seen.opacity).mean()
        ((seen.rgb - 0.3).square().mean() + (seen.feature - 1).square().mean() + 0.1 * depth).backward()
        found = [p.grad.flatten() for p in (*field.network.parameters(), ours) if p.grad is not None]
        gradients.append(torch.cat(found))
        learned.append(sum(rows))
    assert learned[1] < 0.8 * learned[0]
    assert gradients[0].norm() > 0
    assert (gradients[1] - gradients[0]).norm() < 1e-2 * gradients[0].norm()


def test_empty_space_is_asked_once():
    """A survey finds the ball, and of the other space that it is empty; two scenes, each its own."""
    centres = torch.tensor([[0.2, 0.0, 1.1], [0.4, 0.2, 0.8]])[:, None]
    field = NeuralField(SMALL, 3, 5)
    field.network = Ball(centres, 0.1, LOW[0], HIGH[0])
    low, high = LOW.expand(2, 3), HIGH.expand(2, 3)
    told = Told([(torch.zeros(2, 3, 2, 2, 2), low, high)], low, high)
    single = rays_of(look_at(np.array([1.5, 0.2, 1.6]), np.array([0.3, 0.1, 1.0])), 24)
    names = ("origins", "directions", "near", "far", "unmoved")
    rays = Rays(*(getattr(single, name).expand(2, *getattr(single, name).shape[1:]).contiguous() for name in names))
    with torch.no_grad():
        whole = field(told, rays)
        everywhere, field.network.asked = field.network.asked, 0
        empty = field.survey(told)
        assert field.network.asked < 2 * 36**3
        field.network.asked = 0
        ours = field(replace(told, empty=empty), rays)
    assert field.network.asked < 0.3 * everywhere
    for name in ("rgb", "opacity", "feature", "depth"):
        torch.testing.assert_close(getattr(ours, name), getattr(whole, name), atol=1e-3, rtol=0)
    points = torch.rand(2, 4000, 3) * (HIGH - LOW) + LOW
    held = empty.may_hold(points)
    distance = (points - centres).norm(dim=-1)
    assert held[distance < 0.1].all() and not held[distance > 0.25].any()


def test_haze_is_what_a_ray_loses_in_front_of_what_was_measured():
    """In a fog of known density; a ray that misses, and one that shows what lies before the box, lose nothing."""
    torch.manual_seed(0)
    field = NeuralField(SMALL, 4)
    torch.nn.init.zeros_(field.network.density.weight)
    torch.nn.init.constant_(field.network.density.bias, 0.5)
    density = float(torch.nn.functional.softplus(torch.tensor(-0.5))) * DENSITY_SCALE
    rays = rays_of(look_at(np.array([0.2, 0.0, 2.5]), np.array([0.2, 0.05, 0.8])), 8)
    told = Told([(torch.rand(1, 4, 6, 6, 6), LOW, HIGH)], LOW, HIGH)
    for behind in (0.002, 0.01):
        measured = rays.near + IN_FRONT + behind
        haze = field.haze(told, rays, measured, 5, torch.Generator().manual_seed(0))
        expected = torch.where(rays.hits, 1 - torch.exp(-density * behind * rays.lengths()), 0.0).mean()
        assert haze.item() == pytest.approx(expected.item(), rel=0.01)
    assert field.haze(told, rays, rays.near - 0.1, 5, torch.Generator()).item() == 0.0
    measured = (rays.near + 0.3).requires_grad_(False)
    field.haze(told, rays, measured, 5, torch.Generator()).backward()
    assert field.network.density.bias.grad.item() > 0  # less of it loses less


def test_what_hides_between_the_cells_is_known_from_points():
    field = NeuralField(SMALL, 3, 5)
    centre = torch.tensor([0.201, 0.002, 1.101])
    field.network = Ball(centre, 0.002, LOW[0], HIGH[0])
    told = Told([(torch.zeros(1, 3, 2, 2, 2), LOW, HIGH)], LOW, HIGH)
    assert not field.survey(told).may_hold(centre[None, None]).any()
    empty = field.survey(told, centre[None], torch.zeros(1, dtype=torch.long))
    assert empty.may_hold(centre[None, None]).all()
    assert not empty.may_hold(torch.tensor([[[0.5, 0.3, 1.3]]])).any()


def test_weights_of_a_uniform_fog():
    """Beer and Lambert: what is left after a way s through density d is exp(-d s), however it is cut up."""
    for samples in (4, 64):
        borders = torch.linspace(1.0, 3.0, samples + 1)[None]
        weights = ray_weights(torch.full((1, samples), 0.7), borders, torch.tensor([1.25]))
        assert weights.sum().item() == pytest.approx(1 - np.exp(-0.7 * 2.0 * 1.25), abs=1e-5)


def test_where_samples_lie():
    generator = torch.Generator().manual_seed(0)
    near, far = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.5])
    for jitter in (False, True):
        depths = stratified(near, far, 8, generator, jitter)
        assert (depths.diff() > 0).all() and (depths >= near[:, None]).all() and (depths <= far[:, None]).all()
    weights = torch.zeros(2, 8)
    weights[:, 5] = 1.0
    borders = edges(stratified(near, far, 8, None, False), near, far)
    drawn = importance(borders, weights, 1000, generator, True)
    within = (drawn >= borders[:, 4:5]) & (drawn <= borders[:, 7:8])
    assert (within.float().mean(1) > 0.99).all()
    middle = (drawn >= borders[:, 5:6]) & (drawn <= borders[:, 6:7])
    assert middle.float().mean().item() == pytest.approx(0.5, abs=0.05)
    guided = around_depth(torch.tensor([1.7]), 0.02, 4000, generator)
    assert guided.mean().item() == pytest.approx(1.7, abs=2e-3) and guided.std().item() == pytest.approx(0.02, rel=0.1)


def test_it_learns_a_scene_and_gradients_reach_the_volume():
    """A tiny scene, two balls' worth of features in the volume: colour and depth of views come out right."""
    torch.manual_seed(0)
    low, high = LOW, HIGH
    volume = torch.zeros(1, 4, 12, 12, 12)
    volume[:, :, 4:8, 4:8, 4:8] = 1.0
    volume.requires_grad_()
    field = NeuralField(FieldConfig(width=32, blocks=2, injections=2, frequencies=2, coarse=24, fine=8, guided=4), 4)
    rays = rays_of(look_at(np.array([1.5, 0.2, 1.6]), np.array([0.2, 0.0, 1.1])), 16)
    ball = NeuralField(FieldConfig(width=16, coarse=64, fine=64), 1)
    ball.network = Ball(torch.tensor([0.2, 0.0, 1.1]), 0.15, LOW[0], HIGH[0])
    with torch.no_grad():
        truth = ball(Told([(torch.zeros(1, 1, 2, 2, 2), low, high)], low, high), rays)
    solid = truth.opacity > 0.5
    measured = torch.where(solid, truth.depth, torch.full_like(truth.depth, 9.0))
    wanted = torch.where(solid[..., None], truth.rgb, torch.full_like(truth.rgb, 0.5))
    optimiser = torch.optim.Adam([*field.parameters(), volume], 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        seen = field(Told([(volume, low, high)], low, high), rays, generator, measured)
        loss = (seen.rgb - wanted).square().mean() + (seen.coarse_rgb - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert volume.grad.abs().sum() > 0
    with torch.no_grad():
        seen = field(Told([(volume, low, high)], low, high), rays)
    error = (seen.rgb - wanted).square().mean().item()
    baseline = (wanted.mean(dim=1, keepdim=True) - wanted).square().mean().item()
    assert error < baseline / 10
