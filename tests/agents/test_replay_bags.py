"""From a robot's bag to a demonstration that trains and is shown, and a policy that decides on it as it does live."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agents import replay, training
from agents.agent import Agent
from demos.bags import convert
from demos.view.replay import Replay, Sight, find_shown
from envs.interface import Observation
from manifield.configuration import compose
from manifield.errors import InputError
from tests.demos.bags.twin import play, write_bag

CAMERAS, SIZE = ("front", "wrist"), 32
ROBOT = [
    "env.frames.tool_offset=[0,0,0,0,0,0,1]",
    "env.sensing.near=0.01",
    "env.sensing.far=4.5",
]
WORDS = "push the maroon button"


@pytest.fixture(scope="module")
def episode() -> tuple[list[Observation], list[int]]:
    return play(CAMERAS, SIZE)


@pytest.fixture
def bag(episode: tuple[list[Observation], list[int]], tmp_path: Path) -> Path:
    return write_bag(tmp_path / "bags" / "push_0", episode[0], task="push_buttons", instruction=WORDS)


def test_a_bag_trains_is_shown_and_replays_as_live(  # type: ignore[no-untyped-def]
    episode: tuple[list[Observation], list[int]],
    bag: Path,
    tmp_path: Path,
    train_config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "real"
    cameras = [f"env.cameras=[{','.join(CAMERAS)}]", f"env.image_size={SIZE}"]
    assert convert.run(compose("convert", [str(bag.parent), f"data={data}", *cameras, *ROBOT])) == 0
    assert find_shown(data) == [data / "push_buttons" / "all_variations" / "episodes" / "episode0"]
    shown = Replay(find_shown(data)[0], Sight((-0.3, -0.5, 0.6), (0.7, 0.5, 1.6), 0.3, 0.0, 10**5, 0.01))
    assert shown.keyframes and shown.episode.descriptions == [WORDS]
    training.run(train_config(f"data={data}", "tasks=push_buttons", "steps=2"))

    run = tmp_path / "run"
    agent = Agent.load(run)
    frames, ends = episode
    live = [agent.act(frames[k], WORDS, number)[0] for number, k in enumerate([0, *ends[:-1]])]
    capsys.readouterr()
    assert replay.run(compose("replay", [str(bag), f"run={run}", "take.pauses=true", *ROBOT])) == 0
    printed = capsys.readouterr().out
    page = run / "replays" / "push_0.html"
    assert str(page) in printed and WORDS in printed and "off by" in printed
    text = page.read_text()
    assert text.count("<img") == len(live) and "http" not in text.replace("http://www.w3.org", "")
    facts = json.loads(page.with_suffix(".json").read_text())
    assert len(facts["moments"]) == len(live)
    cell = min(replay.cell_size(agent.act(frames[0], WORDS, 0)[1]))
    for moment, action in zip(facts["moments"], live, strict=True):
        assert np.abs(np.array(moment["position"]) - action.position).max() < cell
        assert abs(np.dot(moment["quaternion"], action.quaternion)) > 1 - 1e-6
        assert moment["gripper_open"] == action.gripper_open
    true = [frames[end].gripper_pose[:3] for end in ends]
    for moment, action, goal in zip(facts["moments"], live, true, strict=True):
        assert moment["distance"] == pytest.approx(np.linalg.norm(action.position - goal), abs=0.003)

    with pytest.raises(InputError, match="no such bag"):
        replay.run(compose("replay", [str(tmp_path / "none"), f"run={run}"]))
    with pytest.raises(InputError, match="trained with"):
        replay.run(compose("replay", [str(bag), f"run={run}", "env.cameras=[wrist]"]))
    with pytest.raises(InputError, match="env=ros"):
        replay.run(compose("replay", [str(bag), f"run={run}", "env=mujoco"]))
    mute = write_bag(tmp_path / "mute", frames)
    with pytest.raises(InputError, match="instruction="):
        replay.run(compose("replay", [str(mute), f"run={run}", *ROBOT]))


def test_a_run_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        replay.run(compose("replay", ["bag=none", f"run={tmp_path / 'nothing'}"]))
