"""From `configs/VERB.yaml` and `key=value` words to one checked config. Hydra composes; this file checks and explains.

Hydra's own override grammar can add, delete and sweep. A run here is one config with the keys it is written with, so
only `key=value` is taken; in exchange every key and value is checked against the default that it replaces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from manifield.errors import InputError, choose

# Beside this package, in a checkout and when installed; never whatever `configs` the working folder may hold.
CONFIGS = Path(__file__).resolve().parent.parent / "configs"

EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}


@dataclass
class Recipe:
    """What a verb's config is made of, before any value is replaced.

    config: composed, interpolations not resolved. groups: group → its choice now. options: group → all its choices.
    sources: (YAML file, dotted prefix of its keys) in the order in which they were merged.
    """

    config: DictConfig
    groups: dict[str, str | None]
    options: dict[str, list[str]] = field(default_factory=dict)
    sources: list[tuple[Path, str]] = field(default_factory=list)

    def keys(self) -> list[str]:
        """Every dotted key that holds a value."""
        return [key for key, _ in leaves(OmegaConf.to_container(self.config))]  # type: ignore[arg-type]


def compose(verb: str, words: Sequence[str] = (), folder: Path = CONFIGS) -> DictConfig:
    """The config of `verb` with the `key=value` words applied: checked, complete, interpolations resolved, read-only.

    Args:
        verb: name of a top-level config.
        words: such as "steps=100", "agent=peract", "tasks=[open_drawer,push_buttons]", "agent.depth=4". The first key
            of a config, if it has no default (`???`), may be given without its name: `manifield view PATH`.

    Raises:
        InputError: an unknown key or group choice (names the nearest), a value of another type than the default's, or
            a required value that is not given.
    """
    recipe, pairs = compose_recipe(verb, words, folder)
    defaults = recipe.config
    config = defaults.copy()
    given: list[tuple[str, str]] = []
    for key, text in pairs:
        for name, value in _flatten(key, _read_value(recipe, verb, key, text), _default(defaults, key)):
            given.append((name, f"{name}={text}" if name == key else f"{key}={text}"))
            OmegaConf.update(config, name, value, merge=False)
    try:
        missing = OmegaConf.missing_keys(config)
        if missing:
            raise InputError(f"{verb} needs {', '.join(f'{key}=…' for key in sorted(missing))}")
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise InputError(f"config of {verb}: {_first_line(error)}") from error
    for name, word in given:  # again, now that interpolations have turned into values
        _match(word, OmegaConf.select(config, name), _default(defaults, name))
    OmegaConf.set_readonly(config, True)
    return config


def compose_recipe(verb: str, words: Sequence[str], folder: Path = CONFIGS) -> tuple[Recipe, list[tuple[str, str]]]:
    """Apply the group choices among `words`; return the recipe and the remaining (key, text) pairs.

    A choice may bring new groups along, so this composes until no remaining word names a group.
    """
    if not (folder / f"{verb}.yaml").is_file():
        raise InputError(f"there is no config for {verb}: expected {folder / verb}.yaml")
    pairs = [split_word(verb, word) for word in _name_bare_word(folder / f"{verb}.yaml", words)]
    chosen: dict[str, str] = {}
    while True:
        recipe = _load(verb, [f"{group}={choice}" for group, choice in chosen.items()], folder)
        groups = [(key, text) for key, text in pairs if key in recipe.groups]
        pairs = [(key, text) for key, text in pairs if key not in recipe.groups]
        if not groups:
            return recipe, pairs
        for group, text in groups:
            allowed = recipe.options[group] + (["null"] if recipe.groups[group] is None else [])
            chosen[group] = choose(text.strip(), allowed, f"choice for {group}")


def _load(verb: str, overrides: list[str], folder: Path) -> Recipe:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = hydra_compose(verb, overrides, return_hydra_config=True)
            loader = GlobalHydra.instance().config_loader()
            groups = {
                group: choice
                for group, choice in config.hydra.runtime.choices.items()
                if group != "hydra" and not group.startswith("hydra/")
            }
            options = {group: loader.get_group_options(group.partition("@")[0]) for group in groups}
            merged = loader.compute_defaults_list(verb, overrides, RunMode.RUN).defaults
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"config of {verb}: {_first_line(error)}") from error
    with open_dict(config):
        config.pop("hydra", None)
    sources = [
        (folder / f"{default.config_path}.yaml", default.package or "")
        for default in merged
        if default.config_path and not default.config_path.startswith("hydra")
    ]
    # A leading underscore marks a file that others build on, not a choice.
    visible = {group: [name for name in names if not name.startswith("_")] for group, names in options.items()}
    return Recipe(config, groups, visible, [source for source in sources if source[0].is_file()])


def _name_bare_word(file: Path, words: Sequence[str]) -> list[str]:
    """The words with the only one among them that names no key given the name of the config's first, required key; if
    that is a plural, with all of them as its list."""
    bare = [word for word in words if "=" not in word]
    key, value = next(iter((yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items()), ("", None))
    if value != "???" or not all(bare) or not (len(bare) == 1 or (bare and key.endswith("s"))):
        return list(words)
    given = bare[0] if len(bare) == 1 else f"[{','.join(bare)}]"
    return [f"{key}={given}", *(word for word in words if "=" in word)]


def split_word(verb: str, word: str) -> tuple[str, str]:
    """Key and text of a word.

    Raises:
        InputError: it has another form.
    """
    key, equals, text = word.partition("=")
    if key.startswith("--") and equals:
        raise InputError(f"keys are given without dashes: {key.lstrip('-')}={text}")
    if key[:1] in "+~" and key:
        raise InputError(f"'{word}': keys can be neither added nor removed; manifield {verb} --help lists them")
    if not key or not equals:
        raise InputError(f"'{word}' is not of the form key=value; manifield {verb} --help lists the keys")
    return key.strip(), text


def _read_value(recipe: Recipe, verb: str, key: str, text: str) -> Any:
    """The value that `text` means for `key`, of the type of the key's default."""
    word, default = f"{key}={text}", _default(recipe.config, key)
    if default is _UNKNOWN:
        raise InputError(f"unknown key '{key}' for {verb}: {_nearest(key, recipe)}")
    if "${" in text:
        return text
    if isinstance(default, str) and text.strip() not in ("null", "") and text.lstrip()[:1] not in ("[", "{"):
        # Text is taken as it stands: names and paths need no quotes, whatever they look like.
        text = text.strip()
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if not text.strip() and default != "":  # half a word, more likely than a wish for nothing; that is key=''
        raise InputError(f"{word} has no value{_wanted(default)}")
    several = default is None or isinstance(default, list)
    try:
        value = _plain(OverridesParser.create().parse_override(f"value={text}")._value, several)
    except HydraException:
        raise InputError(f"{word}: cannot be read{_wanted(default)}") from None
    if isinstance(default, list) and not isinstance(value, (list, dict)) and value is not None:
        value = [value]  # one thing where several are possible
    if isinstance(default, list) and isinstance(value, list) and default and all(isinstance(x, str) for x in default):
        value = [str(x) if isinstance(x, int | float) else x for x in value]
    return _match(word, value, default)


def _plain(value: Any, as_list: bool) -> Any:
    """Hydra's parsed value as plain Python. `a,b` is a sweep to Hydra; where a list belongs it is one."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, ChoiceSweep) and as_list:
        return [_plain(x, False) for x in value.list]
    if isinstance(value, list):
        return [_plain(x, False) for x in value]
    if isinstance(value, dict):
        return {str(_plain(k, False)): _plain(v, False) for k, v in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise HydraException("sweeps and functions are not values")


def _match(word: str, value: Any, default: Any) -> Any:
    """`value` if it may replace `default`, else `InputError`. A default of null says nothing, so anything may."""
    value = OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value
    if default is None or default == "???":
        return value
    if isinstance(default, bool) or isinstance(value, bool):
        fits = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, float):
        fits = isinstance(value, int | float) and not math.isnan(value)
    elif isinstance(default, dict):
        fits = isinstance(value, dict)
    elif isinstance(default, list):
        fits = isinstance(value, list)
        kinds = {type(x) for x in default}
        if fits and (len(kinds) == 1 or kinds == {int, float}):
            sample = next((x for x in default if isinstance(x, float)), default[0] if default else None)
            for x in value:
                _match(word, x, sample) if not isinstance(sample, dict) else None
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise InputError(f"{word}: expected{_wanted(default).removeprefix(', expected')}")
    return value


def _wanted(default: Any) -> str:
    if default is None or default == "???":
        return ""
    kind = "a mapping" if isinstance(default, dict) else EXPECTED.get(type(default), type(default).__name__)
    return f", expected {kind} like {show(default)}"


class _Unknown:
    pass


_UNKNOWN = _Unknown()


def _default(config: DictConfig, key: str) -> Any:
    """The default of a dotted key as plain Python (interpolations resolved where possible), or `_UNKNOWN`."""
    node: Any = config
    *parents, last = key.split(".")
    try:
        for name in parents:
            node = _child(node, name)
        value = _child(node, last)
    except OmegaConfBaseException:
        return None  # an interpolation that only other values complete
    return OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value


def _child(node: Any, name: str) -> Any:
    if isinstance(node, ListConfig) and name.isdigit() and int(name) < len(node):
        return node[int(name)]
    if isinstance(node, DictConfig) and name in node.keys():
        return "???" if OmegaConf.is_missing(node, name) else node[name]
    return _UNKNOWN


def _flatten(key: str, value: Any, default: Any) -> Iterator[tuple[str, Any]]:
    """A mapping given for a mapping replaces only the keys it names, and only known ones.

    An empty default takes any keys. A mapping with another `name` is another kind of thing with keys of its own, so it
    replaces the default as a whole, and whoever makes the thing checks them.
    """
    if not isinstance(value, dict) or not default or value.get("name", default.get("name")) != default.get("name"):
        yield key, value
        return
    for name, inner in value.items():
        if name not in default:
            raise InputError(f"unknown key '{key}.{name}': known: {', '.join(f'{key}.{known}' for known in default)}")
        inner = _match(f"{key}.{name}={show(inner)}", inner, default[name])
        yield from _flatten(f"{key}.{name}", inner, default[name])


def leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a nested mapping that is not itself a filled mapping or a list of such."""
    for name, value in tree.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, key)
        elif isinstance(value, list) and any(isinstance(x, Mapping) for x in value):
            yield from leaves({str(index): x for index, x in enumerate(value)}, key)
        else:
            yield key, value


def make(config: Mapping[str, Any] | DictConfig, **arguments: Any) -> Any:
    """The thing that a config with `_target_` describes, made with further arguments.

    Raises:
        InputError, ModuleNotFoundError: what making it raised, freed from Hydra's wrapping.
    """
    try:
        return instantiate(config, **arguments, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InputError | ModuleNotFoundError):
                raise cause from None
            cause = cause.__cause__
        raise


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Every dotted key whose value differs between two configs, as "key=before, not now"."""
    old, new, absent = dict(leaves(before)), dict(leaves(now)), object()
    texts = []
    for key in dict.fromkeys([*old, *new]):
        if old.get(key, absent) != new.get(key, absent):
            given, wanted = (show(config[key]) if key in config else "absent" for config in (old, new))
            texts.append(f"{key}={given}, not {wanted}")
    return texts


def show(value: Any) -> str:
    """A value as one would write it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(show(x) for x in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{show(v)}" for k, v in value.items()) + "}"
    return str(value)


def _nearest(key: str, recipe: Recipe) -> str:
    """Words that name the keys most like `key`: as a whole, or by their last part when the path is wrong or absent."""
    known = [*recipe.keys(), *recipe.groups]
    by_leaf = {name: name.rpartition(".")[2] for name in known}
    last = key.rpartition(".")[2]
    alike = [name for name, leaf in by_leaf.items() if leaf == last]
    alike += get_close_matches(key, known, n=3, cutoff=0.8) or get_close_matches(key, known, n=3, cutoff=0.6)
    alike += [name for name, leaf in by_leaf.items() if leaf in get_close_matches(last, by_leaf.values(), 3, 0.7)]
    near = list(dict.fromkeys(alike))[:3]
    if near:
        return f"did you mean {' or '.join(near)}?"
    if len(known) <= 12:
        return f"known: {', '.join(known)}"
    return "see --help for the keys"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
