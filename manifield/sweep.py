"""`manifield VERB --multirun key=a,b other=1,2`: one job for every combination, and one table of what came of them.

The words are Hydra's: `a,b` and `choice(a,b)` are sweeps, `range(1,4)` counts, `[a,b]` is one value that is a list.
Jobs run one after the other, each in a folder of its own below `run`; what is done already is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from glob import glob
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from manifield.command import load, perform, quoted
from manifield.configuration import compose, split_word
from manifield.errors import InputError

TABLES = {"train": "agents.sweeps:training_table", "evaluate": "agents.sweeps:evaluation_table"}
"""The verbs that can sweep, and "module:function" for a table of each job's (name, run's folder, what it returned)."""


def sweep(verb: str, words: Sequence[str]) -> None:
    """Do every job, then print the table."""
    done, planned = [], jobs(verb, words)
    for number, (name, its) in enumerate(planned):
        print(f"[{number + 1}/{len(planned)}] {quoted(verb, its)}", flush=True)
        done.append((name, Path(compose(verb, its).run), perform(verb, its)))
    table: Callable[..., str] = load(TABLES[verb])
    print(table(done), flush=True)


def jobs(verb: str, words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Of every combination its name, made of the words that differ, and the words of its command line.

    Raises:
        InputError: nothing is swept over, or a combination is no config of the verb.
    """
    if verb not in TABLES:
        raise InputError(f"--multirun: {verb} cannot be swept, only {' and '.join(TABLES)}")
    choices = [_choices(verb, word) for word in words]
    if all(len(one) == 1 for one in choices):
        raise InputError(f"--multirun: nothing to sweep over; give several values, such as {_example(verb)}")
    found = []
    for chosen in product(*choices):
        differing = [word for word, one in zip(chosen, choices, strict=True) if len(one) > 1]
        found.append((",".join(differing), list(chosen)))
    return _in_folders(verb, found)


def _choices(verb: str, word: str) -> list[str]:
    key, text = split_word(verb, word)
    if verb == "evaluate" and key == "run" and "*" in text:  # runs of an earlier sweep; nobody else expands them
        return [f"run={path}" for path in sorted(glob(text)) if (Path(path) / "checkpoints").is_dir()] or [word]
    try:
        parsed = OverridesParser.create().parse_override(f"{key}={text}")
    except HydraException:
        return [word]  # no sweep; what is wrong with it is said when it is read
    if not parsed.is_sweep_override():
        return [word]
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def _in_folders(verb: str, found: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """The same with a folder for each that trains; every config is composed once, before hours of training."""
    placed = []
    for name, words in found:
        config = compose(verb, words)
        if verb == "train":
            where = Path(config.run) / name.replace("/", "-").replace(",", "_")
            words = [*(word for word in words if not word.startswith("run=")), f"run={where}"]
        placed.append((name, words))
    return placed


def _example(verb: str) -> str:
    return "learning_rate=0.001,0.002" if verb == "train" else "run=runs/a,runs/b"
