"""Some of many images: of a set that is sorted by class, the first ones are of few classes."""

from __future__ import annotations

import numpy as np


def spread(most: int, count: int) -> list[int]:
    """At most so many indices of `count` images, ascending and evenly over all of them."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()
