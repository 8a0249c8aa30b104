"""The grid of a sweep: `--grid KEY=VALUE,VALUE`, and keys that go in step.

Notable:
- Keys in step have colons between the values that go together:
  `data.classes.first,model.num_classes=100:100,200:200` is two points, not four. With one key a
  colon is an ordinary character, so `data.train=folder:/a,folder:/b` needs no quotes.
- Values stay text, as written: they are handed on as command-line overrides, which the config
  reads as YAML. Commas and colons inside brackets or quotes belong to the value.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_OPENING, _CLOSING = "[{(", "]})"


@dataclass(frozen=True)
class Axis:
    """One --grid: keys that change together, and their values point by point."""

    keys: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    """A value of each key, for each point."""


@dataclass(frozen=True)
class Point:
    """One point of the grid; seeds are not part of it."""

    settings: tuple[tuple[str, str], ...]
    """(key, value as written), in the order of the grid; empty without a grid."""

    @property
    def overrides(self) -> list[str]:
        """As `pipeline.config.load` takes them."""
        return [f"--{key}={value}" for key, value in self.settings]


def parse_axis(word: str) -> Axis:
    """Read `KEY=VALUE,VALUE` or `KEY,KEY=VALUE:VALUE,VALUE:VALUE`.

    Raises:
        ValueError: it is not of this form.
    """
    left, equals, right = word.partition("=")
    if not equals or not left:
        raise ValueError(f"--grid {word}: expected KEY=VALUE,VALUE, e.g. model.width=128,256")
    keys = tuple(key.strip().replace("-", "_") for key in left.split(","))
    for key in keys:
        if not re.fullmatch(r"\w+(\.\w+)*", key):
            raise ValueError(f"--grid {word}: {key!r} is not a key such as model.width")
    values = []
    for alternative in _split(right, ",", word):
        parts = _split(alternative, ":", word) if len(keys) > 1 else [alternative]
        if len(parts) != len(keys):
            raise ValueError(
                f"--grid {word}: {alternative!r} has {len(parts)} values for {len(keys)} keys: "
                "write one for each, with colons between them"
            )
        if not all(parts):
            raise ValueError(f"--grid {word}: a value is empty (write null for none)")
        values.append(tuple(parts))
    return Axis(keys, tuple(values))


def product(axes: Sequence[Axis]) -> list[Point]:
    """Every combination, the last axis changing fastest; one empty point without axes.

    Raises:
        ValueError: a key stands in the grid twice.
    """
    counts = Counter(key for axis in axes for key in axis.keys)
    for key, count in counts.items():
        if count > 1:
            raise ValueError(
                f"--grid: {key} is given {count} times: list all its values in one --grid"
            )
    return [
        Point(
            tuple(
                setting
                for axis, values in zip(axes, chosen, strict=True)
                for setting in zip(axis.keys, values, strict=True)
            )
        )
        for chosen in itertools.product(*(axis.values for axis in axes))
    ]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key where no other key ends in it, else the whole key."""
    leaves = Counter(key.rpartition(".")[2] for key in keys)
    return {key: leaf if leaves[leaf := key.rpartition(".")[2]] == 1 else key for key in keys}


def run_name(point: Point, seed: int) -> str:
    """`width=8_target=36-255_seed0`: letters, digits and `.+=_-`, which every file system takes."""
    names = short_names([key for key, _ in point.settings])
    parts = [
        f"{names[key]}={re.sub(r'[^A-Za-z0-9.+_-]+', '-', value)}" for key, value in point.settings
    ]
    return "_".join([*parts, f"seed{seed}"])


def _split(text: str, separator: str, word: str) -> list[str]:
    """Cut at the separators that stand outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        if character == separator and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    if depth or quote:
        raise ValueError(f"--grid {word}: a bracket or quote is not closed")
    return [part.strip() for part in parts]
