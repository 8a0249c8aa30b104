"""From a YAML file and `--key value` to a config, and back; what is wrong is said in a sentence."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.run import RunConfig
from pipeline.config.section import Section

SectionType = TypeVar("SectionType", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML without numbers to the base of 60: `2:30` is a time as SLURM writes it, and not 150."""


_SEXAGESIMAL = re.compile(r"[-+]?\d[\d_]*(?::[0-5]?\d)+(?:\.\d*)?$")
_Loader.yaml_implicit_resolvers = {
    first: [("tag:yaml.org,2002:str", _SEXAGESIMAL), *resolvers]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a config file and apply command-line overrides.

    Args:
        path: a YAML file.
        overrides: what the command line left over: `["--training.epochs", "5", "--seed=1"]`.
            Dashes and underscores are the same; values are read as YAML.

    Raises:
        ValueError: one sentence naming the file or key, the value and the mend.
    """
    if not path.is_file():
        raise ValueError(f"config file {path} does not exist{_near_file(path)}")
    try:
        tree = yaml.load(path.read_text(), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(
            f"config file {path} is not YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(tree, dict):
        raise ValueError(f"config file {path} must be a mapping of keys to values")
    for key, value in _pairs(overrides or []):
        _set(tree, key, value)
    return parse(tree, source=str(path))


def parse(tree: dict[str, Any], source: str = "config") -> RunConfig:
    """Check a tree of plain values and make it a RunConfig.

    Raises:
        ValueError: as `load`.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as errors:
        raise ValueError(f"{source}: {_sentence(errors)}") from None


def checked(section: type[SectionType], values: dict[str, Any]) -> SectionType:
    """One section from values of a command line, for doors that have no config file.

    Raises:
        ValueError: a value is out of range, naming it as an argument.
    """
    try:
        return section.model_validate(values)
    except ValidationError as errors:
        error = errors.errors()[0]
        key = ".".join(str(part) for part in error["loc"]).replace("_", "-")
        raise ValueError(f"--{key} {error['input']!r}: {error['msg'].lower()}") from None


def save(config: RunConfig, path: Path) -> None:
    """Write `config`, defaults included, as YAML that `load` reads back to an equal value."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def first_difference(old: RunConfig, new: RunConfig, ignore: set[str]) -> str | None:
    """The first key whose value differs, as "training.epochs: 5 there, 6 here"; None if equal.

    Args:
        ignore: dotted keys, or whole sections, that may differ.
    """
    mine, theirs = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    for key in [*mine, *(key for key in theirs if key not in mine)]:
        if any(key == skip or key.startswith(skip + ".") for skip in ignore):
            continue
        before, now = mine.get(key, "nothing"), theirs.get(key, "nothing")
        if before != now:
            return f"{key}: {before} there, {now} here"
    return None


def _pairs(words: list[str]) -> list[tuple[str, Any]]:
    """Split `--key value` and `--key=value` words; a key without value is true."""
    pairs: list[tuple[str, Any]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"argument {word!r}: expected --key value, e.g. --training.epochs 5")
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        try:
            value = yaml.load(text, _Loader)
        except yaml.YAMLError:
            value = text
        pairs.append((key.replace("-", "_"), value))
    return pairs


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put `value` at a dotted key, e.g. `training.epochs`."""
    *sections, leaf = key.split(".")
    for section in sections:
        if tree.get(section) is None:  # not there, or an optional section that is off
            tree[section] = {}
        if not isinstance(tree[section], dict):
            raise ValueError(f"--{key}: {section!r} is a single value, not a section")
        tree = tree[section]
    tree[leaf] = value


def _sentence(errors: ValidationError) -> str:
    """The first error as one sentence: key, value, mend."""
    error = errors.errors()[0]
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_near_key(key)}"
    if error["type"] == "missing":
        return f"key {key!r} is missing: add it to the file or give --{key} VALUE"
    message = error["msg"].removeprefix("Value error, ")
    return f"key {key!r} has the value {error['input']!r}: {message[0].lower()}{message[1:]}"


def known_keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Every key that a config may have, dotted, in order of declaration."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        inner = [
            part
            for part in (field.annotation, *get_args(field.annotation))  # a section may be optional
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if inner:
            keys += known_keys(inner[0], f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _near_key(key: str) -> str:
    """`; did you mean ...?`, comparing whole keys first and then their last parts."""
    known = known_keys()
    known += sorted({name.rpartition(".")[0] for name in known if "." in name})  # sections
    same_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    near = same_leaf or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        leaves = {name.split(".")[-1]: name for name in known}
        near = [
            leaves[leaf]
            for leaf in difflib.get_close_matches(key.split(".")[-1], leaves, n=1, cutoff=0.6)
        ]
    return f"; did you mean {near[0]!r}?" if near else ""


def _near_file(path: Path) -> str:
    """`; did you mean ...?` among the YAML files beside a missing one."""
    if not path.parent.is_dir():
        return ""
    names = [other.name for other in path.parent.glob("*.yaml")]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
