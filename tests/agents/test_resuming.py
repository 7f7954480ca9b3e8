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
    for part, key in (("augmentation", "recolour"), (None, "focus"), (None, "sampling")):
        del (older["config"][part] if part else older["config"])[key]
    for stage in older["config"]["agent"]["stages"]:
        stage.pop("named", None)
    first = settings["agent"]["stages"][0]
    first["named"] = 0
    (checkpoint / "agent.json").write_text(json.dumps(older))

    assert checkpoint_to_resume(tmp_path, settings) == checkpoint
    settings["augmentation"]["recolour"] = 0.5
    with pytest.raises(InputError, match=r"augmentation\.recolour=0\.0, not 0\.5: repeat its settings"):
        checkpoint_to_resume(tmp_path, settings)
    settings["augmentation"]["recolour"], first["named"] = 0.0, 3
    with pytest.raises(InputError, match=r"agent\.stages.*named=0, not 3"):
        checkpoint_to_resume(tmp_path, settings)
