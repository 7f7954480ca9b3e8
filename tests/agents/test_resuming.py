"""Which runs may go on."""

import copy
import json

import pytest

from agents import training
from agents.checkpoint import find_checkpoint, load_meta
from agents.resuming import checkpoint_to_resume
from manifield.errors import InputError


def test_a_run_from_before_a_key_was_there_goes_on_with_what_it_did_then(train_config, tmp_path):
    training.run(train_config("steps=1", f"run={tmp_path}"))
    checkpoint = find_checkpoint(tmp_path)
    meta = load_meta(checkpoint)
    settings, older = meta["config"], copy.deepcopy(meta)
    for key in ("focus", "sampling"):
        del older["config"][key]
    older["config"]["augmentation"]["recolour"] = 0.0  # a key that is gone
    for stage in older["config"]["agent"]["stages"]:
        stage.pop("named", None)
    first = settings["agent"]["stages"][0]
    first["named"] = 0
    (checkpoint / "agent.json").write_text(json.dumps(older))

    assert checkpoint_to_resume(tmp_path, settings) == checkpoint
    settings["focus"] = 0.5
    with pytest.raises(InputError, match=r"focus=0\.0, not 0\.5: repeat its settings"):
        checkpoint_to_resume(tmp_path, settings)
    settings["focus"], first["named"] = 0.0, 3
    with pytest.raises(InputError, match=r"agent\.stages.*named=0, not 3"):
        checkpoint_to_resume(tmp_path, settings)
    first["named"] = 0
    older["config"]["augmentation"]["recolour"] = 0.5  # and that did something
    (checkpoint / "agent.json").write_text(json.dumps(older))
    with pytest.raises(InputError, match=r"augmentation\.recolour=0\.5"):
        checkpoint_to_resume(tmp_path, settings)
