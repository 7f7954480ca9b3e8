"""Composition and refusal, on a small tree of configs of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from manifield.configuration import CONFIGS, compose, compose_recipe
from manifield.errors import InputError
from manifield.help import header, key_comments, verb_help


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree") / "configs"
    files = {
        "learn.yaml": """
            # Learns things.
            # On two lines.
            defaults:
              - agent: laptop
              - env: mujoco
              - _self_

            # Folder of the run.
            run: runs/demo
            steps: 1000  # how long
            tasks: [open_drawer, push_buttons]
            weights: [1.0, 0.5]
            log: ${run}/log
            limit: null
            fast: false
            # Coarse to fine.
            stages:
              - {name: coarse, width: 1}
              - {name: fine, width: 2}
            # Turning and moving.
            augment:
              # Metres.
              shift: 0.1
              angle: 45
            # How words are read.
            language: {name: minilm, size: 3}
            """,
        "needy.yaml": "where: ???\n",
        "agent/_base.yaml": "# Depth of the thing.\ndepth: 2\nrate: 1e-3\n",
        "agent/laptop.yaml": "# Small.\n\ndefaults: [_base]\nname: laptop\n",
        "agent/peract.yaml": "# Large.\ndefaults: [_base, _self_, head: wide]\ndepth: 6\n",
        "agent/head/wide.yaml": "# Wide one.\n\n# Metres.\nwidth: 3\n",
        "agent/head/thin.yaml": "width: 1\n",
        "env/mujoco.yaml": "cameras: [front, wrist]\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        path.write_text("\n".join(line[indent:] for line in lines).rstrip() + "\n")
    return folder


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("steps=5", "steps", 5),
        ("run=runs/mine", "run", "runs/mine"),
        ("run=2024", "run", "2024"),
        ("run=a=b (c), d:e", "run", "a=b (c), d:e"),
        ("run='a b'", "run", "a b"),
        ("tasks=open_drawer", "tasks", ["open_drawer"]),
        ("tasks=[open_drawer]", "tasks", ["open_drawer"]),
        ("tasks=open_drawer,push_buttons", "tasks", ["open_drawer", "push_buttons"]),
        ("tasks=[open_drawer, push_buttons]", "tasks", ["open_drawer", "push_buttons"]),
        ("tasks=[]", "tasks", []),
        ("weights=[1,2.5]", "weights", [1, 2.5]),
        ("agent.rate=1", "agent.rate", 1),
        ("agent.rate=3e-4", "agent.rate", 3e-4),
        ("limit=7", "limit", 7),
        ("limit=null", "limit", None),
        ("limit=a", "limit", "a"),
        ("limit=a,b", "limit", ["a", "b"]),
        ("stages.1.width=5", "stages.1.width", 5),
        ("stages.1.width=5", "stages.0.width", 1),
        ("fast=true", "fast", True),
        ("augment={shift:0.2}", "augment", {"shift": 0.2, "angle": 45}),
        ("augment.shift=0", "augment.shift", 0),
        ("language={size: 4}", "language", {"name": "minilm", "size": 4}),
        ("language={name: clip, model: RN50}", "language", {"name": "clip", "model": "RN50"}),
        ("agent=peract", "agent.depth", 6),
        ("run=x", "log", "x/log"),
        ("log=${run}/other", "log", "runs/demo/other"),
    ],
)
def test_values_arrive(folder: Path, word: str, key: str, value: object) -> None:
    config = compose("learn", [word], folder)
    found = OmegaConf.select(config, key)
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value
    assert type(found) is type(value) or OmegaConf.is_config(found)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("stepz=5", "unknown key 'stepz' for learn: did you mean steps?"),
        ("depth=5", "unknown key 'depth' for learn: did you mean agent.depth?"),
        ("agent.dept=5", "did you mean agent.depth"),
        ("aguement.shift=0.1", "did you mean augment.shift"),
        ("agent=perakt", "unknown choice for agent 'perakt': did you mean peract"),
        ("agent=_base", "unknown choice for agent"),
        ("evn=mujoco", "did you mean env"),
        ("steps=five", "steps=five: expected a whole number like 1000"),
        ("steps=5.0", "expected a whole number"),
        ("steps=true", "expected a whole number"),
        ("steps=null", "expected a whole number"),
        ("steps=", "expected a whole number"),
        ("steps=1,2", "steps=1,2: cannot be read, expected a whole number"),
        ("steps=range(1,3)", "cannot be read"),
        ("agent.rate=nan", "expected a number"),
        ("agent.rate=fast", "expected a number"),
        ("fast=1", "expected true or false"),
        ("run=null", "expected text"),
        ("run=", "expected text"),
        ("run=[a]", "expected text"),
        ("tasks=null", "expected a list like [open_drawer,push_buttons]"),
        ("weights=[a]", "expected a number"),
        ("weights=[1", "cannot be read"),
        ("augment=3", "expected a mapping"),
        ("augment={shft:1}", "unknown key 'augment.shft': known: augment.shift"),
        ("language={name: minilm, model: RN50}", "unknown key 'language.model'"),
        ("augment={shift:far}", "augment.shift=far: expected a number"),
        ("steps=${run}", "expected a whole number"),
        ("log=${nothing}", "nothing"),
        ("stages.2.width=1", "unknown key 'stages.2.width' for learn: did you mean"),
        ("stages.1.width=a", "expected a whole number"),
        ("+new=1", "neither added nor removed"),
        ("~steps", "neither added nor removed"),
        ("--run=x", "keys are given without dashes: run=x"),
        ("steps", "not of the form key=value"),
        ("run.x=1", "unknown key 'run.x'"),
    ],
)
def test_wrong_words_are_refused_in_one_line(folder: Path, word: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        compose("learn", [word], folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_groups_within_a_chosen_group(folder: Path) -> None:
    assert compose("learn", ["agent=peract"], folder).agent.head.width == 3
    assert compose("learn", ["agent/head=thin", "agent=peract", "agent.depth=1"], folder).agent.head.width == 1
    with pytest.raises(InputError, match="unknown key 'agent/head'"):
        compose("learn", ["agent/head=thin"], folder)


def test_required_values_are_asked_for(folder: Path) -> None:
    with pytest.raises(InputError, match="needy needs where=…"):
        compose("needy", [], folder)
    assert compose("needy", ["where=here"], folder).where == "here"


def test_the_config_is_read_only(folder: Path) -> None:
    config = compose("learn", [], folder)
    with pytest.raises(Exception, match="read-only"):
        config.steps = 3


def test_help_explains_keys_choices_and_defaults(folder: Path) -> None:
    text = verb_help("learn", "learn a thing", [], folder)
    for part in (
        "manifield learn: learn a thing",
        "Learns things. On two lines.",
        "run=runs/demo",
        "Folder of the run.",
        "how long",
        "Turning and moving.",
        "agent=laptop, one of:",
        "Small.",
        "Large.",
        "agent.depth=2",
        "Depth of the thing.",
        "env.cameras=[front,wrist]",
        "log=${run}/log",
    ):
        assert part in text, part
    assert "_base" not in text
    large = verb_help("learn", "", ["agent=peract"], folder)
    assert "agent.depth=6" in large and "Depth of the thing." in large and "agent/head=wide, one of:" in large
    assert "where=(required)" in verb_help("needy", "", [], folder)


def test_comments_above_and_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# Head.\n\n# One\n# two.\na: 1  # three\nb:  # block\n  # inner\n  c: [1, '# no']  # list\nd: x\n")
    assert header(path) == "Head."
    assert key_comments(path, "p") == {"p.a": "One two. three", "p.b": "block", "p.b.c": "inner list"}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_composes_and_explains_every_key(path: Path) -> None:
    recipe, _ = compose_recipe(path.stem, [])
    comments: dict[str, str] = {}
    for source, prefix in recipe.sources:
        comments |= key_comments(source, prefix)
    previous = ""
    for key in recipe.keys():
        if key.endswith("_target_") or key in recipe.groups:  # Hydra's, not the user's; an empty choice of a group
            continue
        parts = key.split(".")
        above = {".".join(parts[: end + 1]) for end in range(len(parts))}
        assert above & set(comments) or previous in comments, f"{key} has no comment"  # one may serve a pair of keys
        previous = key
    for group in recipe.groups:
        assert all(header(CONFIGS / group / f"{option}.yaml") for option in recipe.options[group]), group
