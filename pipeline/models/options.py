"""Checks of a model's options, with errors that name the key of the config."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

from torch import nn


def require_count(name: str, value: Any, least: int = 1, even: bool = False) -> None:
    """Refuse an option that is not a whole number of at least `least`, or odd where it must not be.

    Raises:
        ValueError: naming the option and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"model.{name} is {value!r}, expected a whole number of at least {least}")
    if even and value % 2:
        raise ValueError(
            f"model.{name} is {value}, but MinMax pairs channels and needs an even number: "
            f"take {value - 1 or 2} or {value + 1}"
        )


def require_number(name: str, value: Any, above: float = -math.inf) -> None:
    """Refuse an option that is not a finite number greater than `above`.

    Raises:
        ValueError: naming the option and the value.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not value > above:
        limit = f" above {above:g}" if above > -math.inf else ""
        raise ValueError(f"model.{name} is {value!r}, expected a finite number{limit}")


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse an option that is none of `choices`.

    Raises:
        ValueError: naming the option, the value and the choices.
    """
    if value not in choices:
        raise ValueError(f"model.{name} is {value!r}, expected one of {', '.join(choices)}")


def named_sequence(**layers: nn.Module) -> nn.Sequential:
    """`nn.Sequential` whose parts have these names."""
    return nn.Sequential(OrderedDict(layers))
