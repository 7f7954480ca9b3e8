"""Variants of one training side by side."""

from __future__ import annotations

import pytest

from agents import ablate
from manifield.configuration import compose
from manifield.errors import InputError


def config(data, tmp_path, *words):
    train = "train={steps: 1, batch: 2, threads: 1, tasks: [open_drawer], wandb: disabled}"
    evaluate = "evaluate={episodes: 1, max_actions: 1, workers: 1}"
    field = [] if any(word.startswith("field=") for word in words) else ["field=none"]
    given = [f"data={data}", f"runs={tmp_path / 'runs'}", *field, train, evaluate, *words]
    return compose("ablate", given)


def test_variants_are_trained_evaluated_and_put_into_a_table(tiny_data, tmp_path, capsys):
    words = ["only=[full,slow]", "more={slow: {learning_rate: 0.0001}}", "seeds=[0,3]"]
    ablate.run(config(tiny_data, tmp_path, *words))
    assert sorted(p.name for p in (tmp_path / "runs").glob("*_*")) == ["full_0", "full_3", "slow_0", "slow_3"]
    table = (tmp_path / "runs" / ablate.TABLE).read_text()
    assert "full, open_drawer     0/2" in table and "slow, open_drawer     0/2" in table
    said = capsys.readouterr().out
    assert (tmp_path / "runs/table.csv").read_text().count("\n") == 3
    assert "[1/4] manifield train" in said and "seed=3" in said and table in said
    assert "learning_rate: 0.0001" in (tmp_path / "runs/slow_0/config.yaml").read_text()
    ablate.run(config(tiny_data, tmp_path, *words))  # nothing is done again
    assert capsys.readouterr().out.count("1 of 1 episodes were played before") == 4


def test_mistakes_cost_no_training(tiny_data, tmp_path):
    with pytest.raises(InputError, match="unknown variant 'no_fild': did you mean no_field"):
        ablate.run(config(tiny_data, tmp_path, "only=[no_fild]"))
    with pytest.raises(InputError, match="variant dino: no features of dino in .*leave it out"):
        ablate.run(
            config(tiny_data, tmp_path, "field=laptop", "only=[full,dino]", "more={full: {field.teacher: none}}")
        )
    with pytest.raises(InputError, match="variant typo: unknown key 'learning_rat'"):
        ablate.run(config(tiny_data, tmp_path, "only=[full,typo]", "more={typo: {learning_rat: 1}}"))
    assert not (tmp_path / "runs").exists()
