"""Checks of options, with errors that name the key of the config: "model.depth".

Notable: a number is finite and no bool. YAML reads `.nan`, `.inf` and `yes`, and a comparison such
as `value < 0` lets a NaN pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def require_count(key: str, value: Any, least: int = 1) -> None:
    """Refuse an option that is not a whole number of at least `least`.

    Raises:
        ValueError: naming the key and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key} is {value!r}, expected a whole number of at least {least}")


def require_number(
    key: str,
    value: Any,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Refuse an option that is not a finite number in (`above`, ∞) and [`least`, `most`].

    Raises:
        ValueError: naming the key, the value and the limits.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and value > above and least <= value <= most:
        return
    limits = [
        f"above {above:g}" if above > -math.inf else "",
        f"of at least {least:g}" if least > -math.inf else "",
        f"of at most {most:g}" if most < math.inf else "",
    ]
    limit = " and ".join(each for each in limits if each)
    raise ValueError(f"{key} is {value!r}, expected a finite number{' ' if limit else ''}{limit}")


def require_choice(key: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse an option that is none of `choices`.

    Raises:
        ValueError: naming the key, the value and the choices.
    """
    known = list(choices)
    if value not in known:
        raise ValueError(f"{key} is {value!r}, expected one of {', '.join(known)}")


def require_flag(key: str, value: Any) -> None:
    """Refuse an option that is neither true nor false: the word "no" in quotes would be true.

    Raises:
        ValueError: naming the key and the value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, expected true or false")
