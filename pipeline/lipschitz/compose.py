"""Composition of Lipschitz bounds."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.lipschitz.rounding import mul_up


def product_upper(values: Iterable[float]) -> float:
    """Upper bound of the product of non-negative numbers, rounded up at every multiplication.

    The l2 Lipschitz constant of a composition is at most this product (docs/certificate.md §4).
    An empty product is 1. inf, NaN and overflow give inf or NaN.
    """
    return mul_up(1.0, *(float(value) for value in values))
