"""Teachers' features of episodes: computed once, kept beside the data, refused when they are not of these pictures."""

from __future__ import annotations

import pickle
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from demos.extract_features import run
from demos.features import Features, cache_file, cache_folder, list_pictures, load_features, picture_file
from demos.images import read_rgb
from demos.manifest import hash_folder
from demos.store import episode_directory, open_episode, write_episode
from envs.interface import CameraView
from manifield.configuration import compose
from manifield.errors import InputError
from manifield.files import only_writer
from perception.cameras import look_at
from perception.features.efficientnet import EfficientNet
from perception.features.reduction import Reduction
from perception.field.field import FieldConfig, NeuralField
from perception.field.rays import make_rays
from perception.field.told import Told
from perception.field.views import TargetView, draw_pixels
from tests.perception.features.tiny import save_clip, save_dino, save_stable_diffusion

SMALL = ["teacher.side=64", "teacher.blocks=[4]", "components=5"]
FRAMES, VIEWS = (0, 3, 5), 2  # where `find_keyframes` puts the key-frames of the made-up episodes


def field_view(seed: int) -> CameraView:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    intrinsics = np.array([[16.0, 0.0, 7.5], [0.0, 16.0, 7.5], [0.0, 0.0, 1.0]])
    pose = look_at(np.array([1.4, rng.uniform(-0.5, 0.5), 1.4]), np.array([0.2, 0.0, 1.0]))
    return CameraView(picture, rng.uniform(0.9, 1.6, (16, 16)), intrinsics, pose, 0.01, 10.0)


@pytest.fixture
def data(tmp_path, observation) -> Path:
    """Two tasks, an episode each, with two field views in each of three frames."""
    for number, task in enumerate(("open_jar", "wipe_desk")):
        frames = [observation(index + 10 * number, size=16) for index in range(6)]
        frames = [f if i >= 3 else type(f)(**{**vars(f), "gripper_open": 0.5}) for i, f in enumerate(frames)]
        views = {frame: [field_view(100 * number + 10 * frame + view) for view in range(VIEWS)] for frame in FRAMES}
        directory = episode_directory(tmp_path / "data", task, 0)
        write_episode(directory, frames, [f"do {task}", "the same"], 0, field_views=views)
        assert [f for f, v in list_pictures(open_episode(directory)) if v == 0] == list(FRAMES)
    return tmp_path / "data"


def extract(data: Path, *words: str, small: bool = True) -> int:
    return run(compose("features", [f"data={data}", *(SMALL if small else []), *words]))


def only_file(data: Path, task: str = "open_jar") -> Path:
    return cache_file(cache_folder(data, "efficientnet"), episode_directory(data, task, 0))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


def repaint(picture: Path) -> None:
    Image.fromarray(255 - read_rgb(picture)).save(picture)


# What is kept


def test_what_is_kept_is_what_the_teacher_says_of_each_picture(data, capsys):
    before = hash_folder(data / "open_jar")
    assert extract(data) == 0
    assert "12 pictures of 2 episodes, 8 x 8 x 5 of 40 channels" in capsys.readouterr().out
    assert hash_folder(data / "open_jar") == before  # recorded episodes are left as they are
    cache, episode = cache_folder(data, "efficientnet"), open_episode(episode_directory(data, "open_jar", 0))
    features = load_features(episode, cache)
    assert list(features) == [(frame, view) for frame in FRAMES for view in range(VIEWS)]
    teacher, reduction = EfficientNet([4], 64), Reduction.load(cache / "reduction.safetensors")
    assert features.identity == f"{teacher.identity} {reduction.identity}" and features.channels == 5
    for picture in features:
        expected = reduction(teacher(read_rgb(picture_file(episode.path, picture))[None]))[0]
        assert features[picture].dtype == np.float16 and features[picture].shape == (8, 8, 5)
        assert np.allclose(features[picture], expected, atol=0.01)
    again = pickle.loads(pickle.dumps(features))  # as a data loader's workers get it
    assert np.array_equal(again[3, 1], features[3, 1])


def test_all_channels_other_frames_and_cameras_on_request(data):
    extract(data, "components=0", "every=4", "cameras=[front,wrist]", "tasks=open_jar", "select=0")
    features = Features(only_file(data))
    expected = {(f, camera) for f in (0, 3, 4, 5) for camera in ("front", "wrist")} | {
        (f, v) for f in FRAMES for v in (0, 1)
    }
    assert set(features) == expected and features[4, "wrist"].shape == (8, 8, 40) and features.reduction == ""
    assert not only_file(data, "wipe_desk").exists()


def test_the_folder_can_be_elsewhere_and_the_pca_of_other_data_be_used(data, tmp_path):
    extract(data)
    pca = cache_folder(data, "efficientnet") / "reduction.safetensors"
    extract(data, f"cache={tmp_path / 'held_out'}", "tasks=wipe_desk", f"reduction={pca}", "components=32")
    extract(data, f"cache={tmp_path / 'own'}", "fit=3")
    with pytest.raises(InputError, match="holds features with pca=5 .*, not pca=5 .*; choose another folder"):
        extract(data, f"cache={tmp_path / 'own'}", f"reduction={pca}")
    other = Features(tmp_path / "held_out/wipe_desk/all_variations/episode0.safetensors")
    assert other.identity == Features(only_file(data, "wipe_desk")).identity
    with pytest.raises(InputError, match="of another teacher: .* side=64 .*, not .* side=32 "):
        extract(data, f"cache={tmp_path / 'third'}", f"reduction={pca}", "teacher.side=32")


# Nothing twice


class Interrupted:
    """Makes the teacher stop after some calls, as Ctrl-C would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
        self.left, self.original = calls, EfficientNet.__call__
        monkeypatch.setattr(EfficientNet, "__call__", lambda *arguments: self(*arguments))

    def __call__(self, *arguments: object) -> np.ndarray:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.original(*arguments)


@pytest.mark.parametrize("calls", [3, 12, 13, 15, 17])  # 12 for the PCA, then one for each batch of two
def test_a_run_that_was_stopped_goes_on_where_it_was(data, tmp_path, monkeypatch, calls):
    shutil.copytree(data, tmp_path / "straight")
    extract(tmp_path / "straight", "batch=2")
    with monkeypatch.context() as patch:
        Interrupted(patch, calls)
        with pytest.raises(KeyboardInterrupt):
            extract(data, "batch=2")
    left = 12 + 6 if calls < 12 else 6 if calls < 15 else 3  # what had been finished is not computed again
    with monkeypatch.context() as patch:
        counter = Interrupted(patch, left)
        assert extract(data, "batch=2") == 0
        assert counter.left == 0 and extract(data, "batch=2") == 0  # and a third run computes nothing
    folders = [cache_folder(root, "efficientnet") for root in (data, tmp_path / "straight")]
    assert contents(folders[0]) == contents(folders[1]) and len(contents(folders[0])) == 3


def test_more_pictures_are_added_and_fewer_are_there_already(data, monkeypatch):
    extract(data)
    extract(data, "cameras=[front]", "tasks=open_jar")
    assert len(Features(only_file(data))) == len(FRAMES) * (VIEWS + 1)
    Interrupted(monkeypatch, 0)
    assert extract(data) == 0


# What is refused, in one line


def refused(message: str, data: Path, *words: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        extract(data, *words)
    assert "\n" not in str(error.value)


def test_a_cache_of_another_teacher(data):
    extract(data)
    refused(
        "of another teacher: efficientnet blocks=4 side=64 .*, not .* side=32 .*overwrite=true", data, "teacher.side=32"
    )
    refused("holds features of 5 components, not 6; choose another folder, cache=…", data, "components=6")
    refused("holds features of 5 components, not all; choose another folder", data, "components=0")
    assert extract(data, "components=6", "overwrite=true") == 0
    assert Features(only_file(data))[0, 0].shape == (8, 8, 6)
    episode = open_episode(episode_directory(data, "open_jar", 0))
    with pytest.raises(InputError, match="features of another teacher: efficientnet .*, not clip"):
        load_features(episode, cache_folder(data, "efficientnet"), identity="clip")


def test_a_cache_without_pca_of_another_teacher(data):
    extract(data, "components=0")
    refused("of another teacher", data, "components=0", "teacher.blocks=[2]")
    refused("of another teacher", data)


def test_pictures_that_have_changed_since(data):
    extract(data)
    episode = open_episode(episode_directory(data, "open_jar", 0))
    cache = cache_folder(data, "efficientnet")
    pictures = episode.path / "nerf_data/3/images"
    shutil.copy(pictures / "0.png", pictures / "2.png")
    with pytest.raises(InputError, match="stale, frame 3 has 3 field views now, not 2; .*overwrite=true"):
        load_features(episode, cache)
    (pictures / "2.png").unlink()
    load_features(episode, cache)
    repaint(pictures / "1.png")
    with pytest.raises(InputError, match=r"stale, .*nerf_data/3/images/1.png has changed since; run"):
        load_features(episode, cache)
    refused("stale, .*1.png has changed since", data)
    assert extract(data, "overwrite=true") == 0
    load_features(episode, cache)
    (pictures / "1.png").unlink()
    with pytest.raises(InputError, match=r"stale, .*1.png has changed"):
        load_features(episode, cache)


def test_features_that_are_missing_or_damaged(data):
    episode, cache = open_episode(episode_directory(data, "open_jar", 0)), cache_folder(data, "efficientnet")
    with pytest.raises(InputError, match="no features; run `manifield features data=.*/data teacher=efficientnet`"):
        load_features(episode, cache)
    extract(data)
    with pytest.raises(InputError, match="no features of frame 1, view front; .*every=…. or camera .cameras=…"):
        load_features(episode, cache)[1, "front"]
    only_file(data).write_bytes(only_file(data).read_bytes()[:100])
    with pytest.raises(InputError, match="not features, or damaged; delete it"):
        load_features(episode, cache)
    refused("not features, or damaged", data)


def test_features_of_the_wrong_size(data):
    extract(data)
    episode = open_episode(episode_directory(data, "open_jar", 0))
    features = load_features(episode, cache_folder(data, "efficientnet"))
    view = TargetView(episode.field_views(0)[0], features[0, 0], "view 0 of frame 0")
    view.check(5)
    with pytest.raises(InputError, match=r"view 0 of frame 0: features must be \[h, w, 32\], not \[8, 8, 5\]: extract"):
        view.check(32)


def test_numbers_that_float16_cannot_hold(data, monkeypatch):
    monkeypatch.setattr(EfficientNet, "__call__", lambda *_: np.full((1, 8, 8, 40), 1e6, np.float32))
    refused("efficientnet gave features up to 1e.06, more than float16 can hold", data, "components=0", "batch=1")


def test_data_and_keys_that_give_nothing_to_do(data, episode):
    refused("no camera 'top'; present: front, wrist", data, "cameras=[top]")
    refused("has no episode 7", data, "select=[0,7]")
    refused("unknown task in .* 'open_jaar': did you mean open_jar", data, "tasks=open_jaar")
    refused("every=0: give a number from 1", data, "every=0")
    refused("components=41: the teacher's features have 40 channels", data, "components=41")
    refused("no such PCA", data, "reduction=nowhere.safetensors")
    refused(r"no field views; record them .* or give cameras=\[front,wrist\]", episode.parents[3], "tasks=open_jar")
    assert not (episode.parents[3] / "features").exists()  # nothing is left behind


def test_two_jobs_do_not_write_into_one_folder(data):
    with only_writer(cache_folder(data, "efficientnet"), "features", "cache"):
        refused("another features is writing there; wait for it or choose cache=…", data)


# The whole way: pictures → teacher → cache → target → loss


def teacher_words(name: str, folder: Path) -> list[str]:
    if name.startswith("efficientnet"):
        return ["teacher.side=64"]
    if name.startswith("stable_diffusion"):
        pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
        weights = save_stable_diffusion(folder)
        return [
            "teacher=stable_diffusion",
            "teacher.side=64",
            f"teacher.layer={name.partition(' ')[2]}",
            f"teacher.weights={weights}",
        ]
    if name == "dino":
        return ["teacher=dino", "teacher.side=56", f"teacher.weights={save_dino(folder)}"]
    if find_spec("open_clip") is None:
        pytest.skip("the extra `clip` is not installed")
    model, file = save_clip(folder, name.partition(" ")[2])
    return ["teacher=clip", "teacher.side=64", f"teacher.model={model}", f"teacher.weights={file}"]


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet",
        "stable_diffusion decoder.5",
        "stable_diffusion unet.11",
        "dino",
        "clip transformer",
        "clip resnet",
    ],
)
def test_from_pictures_to_a_loss(name, data, tmp_path, monkeypatch):
    words = teacher_words(name, tmp_path / "weights")
    assert extract(data, "components=4", *words, small=False) == 0
    cache = cache_folder(data, name.partition(" ")[0])
    samples = []
    for task in ("open_jar", "wipe_desk"):
        episode = open_episode(episode_directory(data, task, 0))
        features = load_features(episode, cache)
        told = "do " + task if name.endswith("unet.11") else ""
        assert features.instruction == told
        views = [TargetView(p, features[3, v]) for v, p in enumerate(episode.field_views(3))]
        for view in views:
            view.check(4)
        samples.append(views)
    low, high = torch.tensor([[-0.3, -0.5, 0.6]] * 2), torch.tensor([[0.7, 0.5, 1.6]] * 2)
    targets = draw_pixels(samples, 48, np.random.default_rng(0))
    rays = make_rays(targets.pixels, targets.intrinsics, targets.T_world_camera, low, high)
    torch.manual_seed(0)
    field = NeuralField(FieldConfig(width=16, blocks=2, injections=1, coarse=8, fine=0, guided=0), 3, 4)
    volume = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    optimiser = torch.optim.Adam([*field.parameters(), volume], lr=0.02)
    losses = []
    for _ in range(30):
        rendering = field(Told([(volume, low, high)], low, high), rays, torch.Generator().manual_seed(0))
        loss = F.mse_loss(rendering.feature, targets.feature)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert targets.feature.shape == (2, 48, 4) and torch.isfinite(targets.feature).all()
    assert volume.grad is not None and volume.grad.abs().max() > 0
    assert losses[-1] < 0.7 * losses[0]
    if told:  # an instruction that has changed makes such features stale
        monkeypatch.setattr(episode, "descriptions", ["do something else"])
        with pytest.raises(InputError, match="stale, made for 'do wipe_desk', not 'do something else'"):
            load_features(episode, cache)
