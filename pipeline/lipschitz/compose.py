"""Composition of Lipschitz bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pipeline.lipschitz.rounding import mul_up


def product_upper(values: Iterable[float]) -> float:
    """Upper bound of the product of non-negative numbers, rounded up at every multiplication.

    The l2 Lipschitz constant of a composition is at most this product (docs/certificate.md §4).
    An empty product is 1. A factor 0 makes 0; inf, NaN and overflow give inf or NaN.
    """
    factors = [float(value) for value in values]
    if 0.0 in factors and all(map(math.isfinite, factors)):
        return 0.0  # where rounding up would give the least number above it
    return mul_up(1.0, *factors)
