"""What `--help` prints, written from the configs themselves: a key is explained by the comment above it in its YAML."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from manifield.configuration import CONFIGS, compose_recipe, leaves, show

COLUMN = 34  # where explanations start, if the key and its default leave room


def verb_help(verb: str, summary: str, words: Sequence[str] = (), folder: Path = CONFIGS) -> str:
    """Summary, config groups with their choices, and every key with default and comment.

    `words` are the other words of the command line, so that `manifield train agent=peract --help` shows that choice.
    """
    recipe, _ = compose_recipe(verb, words, folder)
    comments: dict[str, str] = {}
    for path, prefix in recipe.sources:
        comments |= key_comments(path, prefix)
    lines = [f"manifield {verb}: {summary}", "", f"usage: manifield {verb} key=value …", ""]
    about = header(folder / f"{verb}.yaml")
    lines += [*_wrap(about, 0), ""] if about else []

    tree: Any = OmegaConf.to_container(recipe.config, resolve=False)
    values = [(key, value) for key, value in leaves(tree) if not key.endswith("_target_")]  # that one is Hydra's
    packages = {group: group.partition("@")[2] or group.replace("/", ".") for group in recipe.groups}
    own = [(key, value) for key, value in values if not any(_inside(key, package) for package in packages.values())]
    lines += ["keys, with their defaults:", *_entries(own, comments), ""]
    for group, choice in recipe.groups.items():
        lines.append(f"{group}={choice or 'null'}, one of:")
        for option in recipe.options[group]:
            lines += _entry(option, header(folder / group.partition("@")[0] / f"{option}.yaml"))
        own_package = packages[group]
        deeper = [other for other in packages.values() if other != own_package and _inside(other, own_package)]
        inside = [
            (key, value)
            for key, value in values
            if _inside(key, own_package) and not any(_inside(key, package) for package in deeper)
        ]
        if inside:
            lines += [f"keys of {group}={choice}:", *_entries(inside, comments)]
        lines.append("")
    for group, choices in recipe.options.items():
        if len(choices) > 1:
            lines.append(f"another choice's keys: manifield {verb} {group}=CHOICE --help")
    lines.append("flags: --print-config (show the config and stop), --traceback (show where an error arose)")
    return "\n".join(lines)


def key_comments(path: Path, prefix: str = "") -> dict[str, str]:
    """Dotted key → the comment lines right above it and behind it, joined to one text."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found: dict[str, str] = {}

    def visit(node: yaml.Node | None, parent: str, parent_line: int = -1) -> None:
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                visit(item, f"{parent}.{index}", parent_line)
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name = f"{parent}.{key.value}" if parent else str(key.value)
            if key.start_mark.line == parent_line:  # {in: one, line: …} the comment is the parent's
                continue
            parts = _block_above(lines, key.start_mark.line)
            same_line = value.end_mark.line == key.start_mark.line
            rest = lines[key.start_mark.line][value.end_mark.column if same_line else key.end_mark.column + 1 :].strip()
            if rest.startswith("#"):
                parts.append(rest.lstrip("# "))
            if parts:
                found[name] = " ".join(parts)
            visit(value, name, key.start_mark.line)

    visit(yaml.compose(text), prefix)
    return found


def header(path: Path) -> str:
    """The comment at the head of a YAML file: ends at a blank line or at what is Hydra's (`defaults`, `_target_`)."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    block: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            return " ".join(block) if not line.strip() or line.startswith(("defaults:", "_target_:")) else ""
        if not line.startswith("# @package"):
            block.append(line.lstrip("# "))
    return " ".join(block)


def _block_above(lines: list[str], index: int) -> list[str]:
    indent = len(lines[index]) - len(lines[index].lstrip())
    block: list[str] = []
    while index > 0 and lines[index - 1].strip().startswith("#"):
        index -= 1
        line = lines[index]
        if len(line) - len(line.lstrip()) != indent or line.startswith("# @package"):
            break
        block.insert(0, line.strip().lstrip("# "))
    return block


def _inside(key: str, package: str) -> bool:
    return key == package or key.startswith(f"{package}.")


def _entries(values: list[tuple[str, object]], comments: dict[str, str]) -> list[str]:
    lines: list[str] = []
    seen: set[str] = set()
    for key, value in values:
        parts = key.split(".")
        for end in range(1, len(parts)):
            section = ".".join(parts[:end])
            if section in comments and section not in seen:  # a section's comment, once
                lines += _entry(f"{section}: ", comments[section])
            seen.add(section)
        shown = f"{key}={'(required)' if value == '???' else show(value)}"
        lines += _entry(shown, comments.get(key, ""))
    return lines or ["  none"]


def _entry(name: str, comment: str) -> list[str]:
    wrapped = _wrap(comment, COLUMN)
    if not wrapped:
        return [f"  {name}"]
    if len(name) + 4 <= COLUMN:
        return [f"  {name}".ljust(COLUMN) + wrapped[0].lstrip(), *wrapped[1:]]
    return [f"  {name}", *wrapped]


def _wrap(text: str, indent: int) -> list[str]:
    width = max(60, min(120, shutil.get_terminal_size((110, 24)).columns))
    return textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)
