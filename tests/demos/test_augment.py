"""Augmentation moves points, tool and goal alike, for grippers of any orientation, and says how."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from demos.augment import augment, random_transform, thin, transform
from demos.dataset import Sample
from perception.cameras import intrinsics_from_fov, look_at, project

LOW, HIGH = np.array([-0.3, -0.5, 0.7]), np.array([0.7, 0.5, 1.4])
SIDEWAYS = Rotation.from_euler("xyz", [90, 0, 5], degrees=True)  # as in open_drawer
DOWN = Rotation.from_euler("xyz", [180, 0, 30], degrees=True)


def sample(rotation: Rotation, count: int = 50) -> Sample:
    rng = np.random.default_rng(0)
    return Sample(
        name="",
        task="",
        descriptions=[""],
        points=rng.uniform(LOW, HIGH, (count, 3)).astype(np.float32),
        colours=rng.integers(0, 255, (count, 3), np.uint8),
        low_dim=np.zeros(4, np.float32),
        tool_position=np.array([0.3, 0.1, 1.2]),
        tool_quaternion=DOWN.as_quat(),
        position=np.array([0.2, -0.1, 0.9]),
        quaternion=rotation.as_quat(),
        gripper_open=True,
        ignore_collisions=False,
    )


@pytest.mark.parametrize("rotation", [SIDEWAYS, DOWN], ids=["sideways", "down"])
def test_goal_keeps_its_place_among_the_points(rotation):
    """Regression for the published defect 5 (points by Rᵀ, action by q · R): seen from the goal's own frame, the moved
    scene is the unmoved one, whatever the gripper's orientation."""
    before = sample(rotation)
    after = transform(before, random_transform(np.random.default_rng(1), np.radians(45), [0.1] * 3, np.zeros(3)))
    for s, other in ((before, after),):
        local = Rotation.from_quat(s.quaternion).inv().apply(s.points - s.position)
        moved = Rotation.from_quat(other.quaternion).inv().apply(other.points - other.position)
        assert moved == pytest.approx(local, abs=1e-5)
    tool_before = Rotation.from_quat(before.tool_quaternion).inv() * Rotation.from_quat(before.quaternion)
    tool_after = Rotation.from_quat(after.tool_quaternion).inv() * Rotation.from_quat(after.quaternion)
    assert (tool_before.inv() * tool_after).magnitude() < 1e-6


def test_cameras_see_the_same_pixels():
    """Regression for the published defect 3: a camera moved by the sample's motion keeps its picture."""
    before = sample(DOWN)
    after = transform(before, random_transform(np.random.default_rng(2), 0.7, [0.1] * 3, np.array([0.2, 0, 1.0])))
    intrinsics = intrinsics_from_fov(0.7, 128, 128)
    pose = look_at(np.array([1.3, 0, 1.5]), np.array([0.2, 0, 0.8]))
    first, _ = project(before.points, intrinsics, pose)
    second, _ = project(after.points, intrinsics, after.motion @ pose)
    assert second == pytest.approx(first, abs=1e-2)


def test_goal_stays_inside_and_seeds_repeat():
    before = sample(SIDEWAYS)
    for seed in range(50):
        draw = [augment(before, np.random.default_rng(seed), LOW, HIGH, 0.8, np.full(3, 0.3)) for _ in range(2)]
        assert (draw[0].position > LOW).all() and (draw[0].position < HIGH).all()
        assert np.array_equal(draw[0].points, draw[1].points)


def test_a_goal_that_cannot_stay_inside_is_left_alone():
    before = sample(DOWN)
    assert augment(before, np.random.default_rng(0), LOW, LOW + 0.01, 0.1, np.zeros(3)) is before


def test_thin_keeps_points_with_their_colours():
    before = sample(DOWN)
    after = thin(before, np.random.default_rng(0), 10)
    assert len(after.points) == 10
    pairs = {(*p, *c) for p, c in zip(before.points.tolist(), before.colours.tolist(), strict=True)}
    assert {(*p, *c) for p, c in zip(after.points.tolist(), after.colours.tolist(), strict=True)} <= pairs
    assert thin(before, np.random.default_rng(0), 50) is before
