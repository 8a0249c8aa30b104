"""What the builders of networks share beyond the checks of `pipeline.options`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from pipeline.options import require_count


def require_even(key: str, value: Any) -> None:
    """Refuse an option that is not an even number of at least 1.

    Raises:
        ValueError: naming the key and the value.
    """
    require_count(key, value)
    if value % 2:
        raise ValueError(
            f"{key} is {value}, but MinMax pairs channels and needs an even number: "
            f"take {value - 1 or 2} or {value + 1}"
        )


def named_sequence(**layers: nn.Module) -> nn.Sequential:
    """`nn.Sequential` whose parts have these names."""
    return nn.Sequential(OrderedDict(layers))
