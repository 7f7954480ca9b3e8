"""Collecting: successes only, whole episodes only, and the same files whatever happened on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from demos.collect import Recorder, run
from demos.store import episode_directory, find_episodes, open_episode, write_episode
from envs.make import make_environment
from envs.seeds import episode_variation
from manifield.configuration import compose
from manifield.errors import InputError

HERE = Path(__file__).resolve().parent
FIELD_VIEWS = OmegaConf.to_container(compose("collect").field_views) | {"image_size": 4}


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra `ray`")


def settings(data: Path, env: dict[str, Any] | None = None, **changes: Any):
    config = {
        "tasks": ["alpha", "beta"],
        "variations": None,
        "cluster": None,
        "field_views": FIELD_VIEWS,
        "depth_bits": 24,
        "episodes": 3,
        "seed": 0,
        "data": str(data),
        "workers": 1,
        "attempts": 10,
        "overwrite": False,
        "env": {"_target_": "fake_world.FakeWorld", **(env or {})},
    }
    return OmegaConf.create(config | changes)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def manifest(data: Path, task: str) -> dict[str, Any]:
    return json.loads((data / task / "manifest.json").read_text())


def test_collected_episodes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(settings(tmp_path)) == 0
    paths = find_episodes(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        f"{task}/all_variations/episodes/episode{index}" for task in ("alpha", "beta") for index in range(3)
    ]
    for index, path in enumerate(paths[:3]):
        episode = open_episode(path)
        assert len(episode) == 25  # the start, and three actions of eight frames
        assert episode.variation == episode_variation("train", 0, "alpha", index, 4)
        assert episode.descriptions == [f"do alpha {episode.variation}"]
    out, err = capsys.readouterr()
    assert "alpha: 3 episodes of 3 variations, 75 frames, 0 of 3 attempts rejected, expert 3/3 (100%) at the" in out
    assert "6/6 episodes" in err and "task beta 3/3" in err


def test_any_number_of_workers_gives_the_same_files(tmp_path: Path) -> None:
    for workers in (1, 2):
        run(settings(tmp_path / str(workers), {"fail": 0.4}, workers=workers))
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_another_seed_gives_other_episodes(tmp_path: Path) -> None:
    for seed in (0, 1):
        run(settings(tmp_path / str(seed), seed=seed, tasks=["alpha"], episodes=1))
    place = "alpha/all_variations/episodes/episode0/low_dim_obs.pkl"
    assert (tmp_path / "0" / place).read_bytes() != (tmp_path / "1" / place).read_bytes()


def test_failures_are_counted_and_never_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(settings(tmp_path, {"fail": 0.6}, episodes=12))
    out = capsys.readouterr().out
    for task in ("alpha", "beta"):
        recorded = manifest(tmp_path, task)
        reasons = [reason for episode in recorded["episodes"] for reason in episode["rejected"]]
        assert set(reasons) <= {"no expert", "unreachable", "not solved", "fewer key-frames than actions"}
        assert recorded["rejected"] == {reason: reasons.count(reason) for reason in sorted(set(reasons))}
        assert len(recorded["episodes"]) == 12 and len(set(reasons)) > 2
        assert [e["attempts"] for e in recorded["episodes"]] == [len(e["rejected"]) + 1 for e in recorded["episodes"]]
        first = sum(not episode["rejected"] for episode in recorded["episodes"])
        assert recorded["first_attempts"] == {"solved": first, "of": 12} and 0 < first < 12
        assert f"{len(reasons)} of {len(reasons) + 12} attempts rejected" in out
        assert f"expert {first}/12 ({first / 12:.0%}) at the first attempt" in out
    for path in find_episodes(tmp_path):
        assert len(open_episode(path)) == 25


def test_a_hopeless_episode_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"alpha: no success for episode [\d, ]+ in \d+ attempts \(.*more attempts="):
        run(settings(tmp_path, {"fail": 0.7}, attempts=1, episodes=8, tasks=["alpha"]))
    recorded = manifest(tmp_path, "alpha")
    assert 0 < len(recorded["episodes"]) < 8
    assert len(recorded["episodes"]) + len(recorded["given_up"]) == 8
    assert len(find_episodes(tmp_path)) == len(recorded["episodes"])


# Going on


def test_more_episodes_later_are_added(tmp_path: Path) -> None:
    run(settings(tmp_path / "at once", episodes=5))
    run(settings(tmp_path / "in two", episodes=2))
    first = (tmp_path / "in two/alpha/all_variations/episodes/episode0/low_dim_obs.pkl").stat().st_mtime_ns
    run(settings(tmp_path / "in two", episodes=5))
    assert files(tmp_path / "at once") == files(tmp_path / "in two")
    again = (tmp_path / "in two/alpha/all_variations/episodes/episode0/low_dim_obs.pkl").stat().st_mtime_ns
    assert again == first, "complete episodes are kept, not recorded again"


def start(data: Path, **changes: Any) -> subprocess.Popen:
    """`collect` in a process of its own, slow enough that a busy machine cannot miss the moment to stop it."""
    config = OmegaConf.to_container(settings(data, {"fail": 0.3}, **changes))
    code = (
        f"import sys, json; sys.path[:0] = [{str(HERE)!r}]\n"
        "from omegaconf import OmegaConf\nfrom demos.collect import run\n"
        "if __name__ == '__main__':\n    run(OmegaConf.create(json.loads(sys.argv[1])))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
        "FAKE_WORLD_DELAY": "0.02",
    }
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(config)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Started in a shell's background, tests inherit that SIGINT is ignored, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_episodes(data: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(list(data.glob("*/all_variations/episodes/episode*"))) < count:
        assert time.monotonic() < deadline, "nothing is being recorded"
        time.sleep(0.01)


@pytest.mark.parametrize(("workers", "kill"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGINT)])
def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path, workers: int, kill: signal.Signals) -> None:
    run(settings(tmp_path / "whole", {"fail": 0.3}, episodes=30))
    data = tmp_path / "stopped"
    process = start(data, episodes=30, workers=workers)
    wait_for_episodes(data, 2)
    os.killpg(process.pid, kill) if kill == signal.SIGINT else process.send_signal(kill)
    process.wait(30)
    if kill == signal.SIGKILL:  # orphaned workers notice at once
        time.sleep(0.5)
    before = len(find_episodes(data))
    time.sleep(0.2)
    assert 2 <= len(find_episodes(data)) == before < 60, "nobody records on"
    (data / "alpha/all_variations/episodes/.unfinished-episode99-x").mkdir()  # as a kill in mid-writing leaves
    run(settings(data, {"fail": 0.3}, episodes=30))
    assert files(data) == files(tmp_path / "whole")


def test_two_at_once_are_kept_apart(tmp_path: Path) -> None:
    process = start(tmp_path, episodes=50)
    wait_for_episodes(tmp_path, 1)
    with pytest.raises(InputError, match="another collect is writing there"):
        run(settings(tmp_path))
    process.kill()
    process.wait()


def test_workers_that_die_again_and_again_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 worker processes died of the same job, beta \d"):
        run(settings(tmp_path, {"die": "always"}, workers=2))
    assert len(find_episodes(tmp_path)) == 3  # those of alpha: nothing is lost


@pytest.mark.parametrize("cluster", [None, pytest.param("local", marks=needs_ray)])
def test_dead_workers_change_nothing(tmp_path: Path, cluster: str | None) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    env = {"fail": 0.4, "die": str(deaths)}
    run(settings(tmp_path / "one", env, field_views=FIELD_VIEWS | {"count": 2}))
    for number in range(2):
        (deaths / str(number)).touch()
    run(settings(tmp_path / "many", env, workers=2, cluster=cluster, field_views=FIELD_VIEWS | {"count": 2}))
    assert not list(deaths.iterdir()) and not list(tmp_path.rglob(".unfinished*"))
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_an_episode_finished_by_a_worker_that_died_is_taken(tmp_path: Path) -> None:
    """It died between giving the episode its name and telling so."""
    config = settings(tmp_path, tasks=["alpha"])
    recorder = Recorder(tmp_path, OmegaConf.to_container(config.env), 0, 10, {"alpha": None})  # type: ignore[arg-type]
    assert recorder(("alpha", 0)) == recorder(("alpha", 0)) == ("alpha", 0, [], True)


# Variations


def recorded_variations(data: Path, task: str) -> list[int]:
    return [open_episode(path).variation for path in find_episodes(data, task)]


def test_chosen_variations_are_recorded_in_turn(tmp_path: Path) -> None:
    run(settings(tmp_path / "list", variations=[3, 1], episodes=4))
    for task in ("alpha", "beta"):
        variations = recorded_variations(tmp_path / "list", task)
        assert sorted(variations[:2]) == sorted(variations[2:]) == [1, 3]
        assert manifest(tmp_path / "list", task)["variations"] == [1, 3]
    run(settings(tmp_path / "one", variations=2, episodes=2))
    assert recorded_variations(tmp_path / "one", "beta") == [2, 2]
    run(settings(tmp_path / "by task", variations={"beta": [0]}, episodes=4))
    assert recorded_variations(tmp_path / "by task", "beta") == [0] * 4
    assert sorted(recorded_variations(tmp_path / "by task", "alpha")) == [0, 1, 2, 3]


def test_all_variations_chosen_one_by_one_are_all(tmp_path: Path) -> None:
    for name, variations in (("null", None), ("all", "all"), ("each", [0, 1, 2, 3])):
        run(settings(tmp_path / name, variations=variations, tasks=["alpha"]))
    episodes = [files(tmp_path / name / "alpha/all_variations") for name in ("null", "all", "each")]
    assert episodes[0] == episodes[1] == episodes[2]


@pytest.mark.parametrize(
    ("variations", "message"),
    [
        ([0, 4], r"variations=\[0, 4\]: alpha has variations 0 to 3; give some of them, or null for all"),
        ([-1], r"variations=\[-1\]: alpha has"),
        ([], r"variations=\[\]: alpha has"),
        (["one"], r"variations=\['one'\]: alpha has"),
        ([1, 1], r"variations=\[1, 1\]: give each once"),
        ({"bta": [0]}, r"unknown task in variations 'bta': did you mean beta"),
        ({"beta": [9]}, r"variations=\[9\]: beta has variations 0 to 3"),
    ],
)
def test_variations_that_do_not_exist(tmp_path: Path, variations: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(settings(tmp_path / "data", variations=variations))
    assert not (tmp_path / "data").exists()


# Field views


def test_field_views_show_their_frame(tmp_path: Path) -> None:
    """The fake world's pictures tell the time at which they were drawn."""
    for name, frames, sliding in (("keys", "keyframes", False), ("end", "keyframes", True), ("every", "6", False)):
        env = {"sliding": sliding}
        run(settings(tmp_path / name, env, field_views=FIELD_VIEWS | {"count": 3, "frames": frames}, episodes=1))
        episode = open_episode(find_episodes(tmp_path / name)[0])
        keyframes = json.loads((episode.path / "manifield.json").read_text())["keyframes"]
        assert episode.field_frames == (tuple(range(0, 25, 6)) if frames == "6" else (0, *keyframes))
        for frame in episode.field_frames:
            views = episode.field_views(frame)
            assert [int(view.rgb[0, 0, 0]) for view in views] == [frame] * 3
            assert len({tuple(view.T_world_camera[:3, 3]) for view in views}) == 3


def test_field_views_leave_the_rest_of_an_episode_alone(tmp_path: Path) -> None:
    for name, count in (("without", 0), ("with", 2)):
        run(settings(tmp_path / name, {"fail": 0.4}, field_views=FIELD_VIEWS | {"count": count}))
    without, others = files(tmp_path / "without"), files(tmp_path / "with")
    assert not [name for name in without if "nerf_data" in name]
    for name, content in without.items():
        if Path(name).suffix in (".pkl", ".png"):
            assert others[name] == content


def test_a_world_without_other_views_is_told_at_once(tmp_path: Path) -> None:
    env = {"_target_": "fake_world.BlindWorld"}
    run(settings(tmp_path / "without", env, episodes=1))
    with pytest.raises(InputError, match="field_views.count=2: BlindWorld has no pictures but its cameras'"):
        run(settings(tmp_path / "with", env, field_views=FIELD_VIEWS | {"count": 2}))
    assert not (tmp_path / "with").exists()


# Refusals


def test_unknown_task_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown task 'alhpa': did you mean alpha"):
        run(settings(tmp_path / "data", tasks=["beta", "alhpa"]))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, "tasks=\\[\\]: give at least one"),
        ({"tasks": ["alpha", "alpha"]}, "each once"),
        ({"episodes": 0}, "episodes=0"),
        ({"workers": 0}, "workers=0"),
        ({"attempts": 0}, "attempts=0"),
        ({"seed": -1}, "seed=-1"),
        ({"depth_bits": 8}, "depth_bits=8: give a number from 12 to 24"),
    ],
)
def test_numbers_that_mean_nothing(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(settings(tmp_path, **changes))


def test_other_settings_do_not_mix(tmp_path: Path) -> None:
    run(settings(tmp_path, episodes=1))
    for changed in (settings(tmp_path, seed=5), settings(tmp_path, {"fail": 0.1})):
        told = r"alpha: was recorded with (seed=0, not 5|env.fail=absent, not 0.1); choose another folder"
        with pytest.raises(InputError, match=told):
            run(changed)


def test_overwrite_deletes_what_collect_recorded(tmp_path: Path) -> None:
    run(settings(tmp_path / "data", episodes=3))
    run(settings(tmp_path / "data", episodes=2, seed=5, overwrite=True))
    run(settings(tmp_path / "fresh", episodes=2, seed=5))
    assert files(tmp_path / "data") == files(tmp_path / "fresh")


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_episodes_are_left_alone(tmp_path: Path, observation, overwrite: bool) -> None:
    write_episode(episode_directory(tmp_path, "alpha", 0), [observation(0)], ["do"], 0)
    before = files(tmp_path)
    with pytest.raises(InputError, match="episodes that `collect` has not recorded"):
        run(settings(tmp_path, overwrite=overwrite))
    assert before.items() <= files(tmp_path).items()


def test_episodes_that_changed_are_named(tmp_path: Path) -> None:
    run(settings(tmp_path, episodes=2))
    before = manifest(tmp_path, "alpha")
    picture = episode_directory(tmp_path, "alpha", 1) / "front_rgb/3.png"
    picture.write_bytes((picture.parent / "4.png").read_bytes())  # a whole picture, but of another frame
    with pytest.raises(
        InputError, match=r"episode1: its files have changed since they were recorded; restore them, or"
    ):
        run(settings(tmp_path, episodes=2))
    shutil.rmtree(picture.parents[1])
    run(settings(tmp_path, episodes=2))
    assert manifest(tmp_path, "alpha") == before


def test_manifests_tell_equal_data_sets_from_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(settings(tmp_path / name, seed=seed, tasks=["alpha"]))
    one, same, other = (manifest(tmp_path / name, "alpha") for name in "abc")
    assert one == same and one["sha256"] != other["sha256"]
    assert one["versions"][0]["python"] and len({episode["sha256"] for episode in one["episodes"]}) == 3


def test_manifests_of_before_are_taken(tmp_path: Path) -> None:
    """They lack the settings that came later, and their hashes are of the low-dimensional data alone."""
    run(settings(tmp_path, tasks=["alpha"], episodes=2))
    now, old = manifest(tmp_path, "alpha"), manifest(tmp_path, "alpha")
    old = {
        key: value
        for key, value in old.items()
        if key not in ("variations", "field_views", "depth_bits", "sha256", "first_attempts")
    }
    for episode in old["episodes"]:
        episode["sha256"] = episode.pop("low_dim_sha256")
    (tmp_path / "alpha/manifest.json").write_text(json.dumps(old))
    run(settings(tmp_path, tasks=["alpha"], episodes=2))
    assert manifest(tmp_path, "alpha") == now


def test_a_damaged_episode_is_named(tmp_path: Path) -> None:
    run(settings(tmp_path, episodes=2))
    episode = episode_directory(tmp_path, "alpha", 1)
    (episode / "manifield.json").write_text("{")
    with pytest.raises(InputError, match=r"episode1/manifield\.json: .* delete the episode and collect again"):
        run(settings(tmp_path, episodes=2))
    shutil.rmtree(episode)
    run(settings(tmp_path, episodes=2))
    (tmp_path / "alpha/manifest.json").write_text("[]")
    with pytest.raises(InputError, match=r"manifest\.json: not a manifest"):
        run(settings(tmp_path, episodes=2))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match=r"data: cannot be written \(.*\); choose another folder"):
        run(settings(tmp_path / "data"))


def test_environment_errors_come_through_unwrapped() -> None:
    with pytest.raises(ModuleNotFoundError):
        make_environment({"_target_": "no_such_package.World"}, "alpha")
    assert make_environment({"_target_": "fake_world.FakeWorld"}, "alpha").task == "alpha"


# The real thing


def test_mujoco(tmp_path: Path) -> None:
    env = {"_target_": "envs.mujoco.environment.MujocoEnvironment", "cameras": ["front"], "image_size": 32}
    for workers in (1, 2):
        run(settings(tmp_path / str(workers), env=env, tasks=["push_buttons"], episodes=2, workers=workers))
    assert files(tmp_path / "1") == files(tmp_path / "2")
    episode = open_episode(find_episodes(tmp_path / "1")[0])
    assert (episode.cameras, episode.image_size) == (("front",), (32, 32))
    assert episode.ignore_collisions is not None
