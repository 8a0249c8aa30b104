"""Rounding outwards: scalars through exact fractions, arrays through one generous factor.

Notable:
- The certifier rounds with `nextafter` after every operation. This is another route: a scalar is an
  exact `Fraction` until it becomes the least float64 not below it; an array expression of at most
  six roundings is multiplied once by `GROW` = 1 + 2^-49 (each rounding loses at most 2^-53
  relatively, so six of them and the multiplication itself lose less than 2^-50).
- u = 2^-53. A sum of n products evaluated in any order, with or without fused operations, is off by
  at most gamma(n) times the sum of the absolute values (Higham, Accuracy and Stability of Numerical
  Algorithms, 2nd edition, Lemma 3.1). Underflow is argued where it can occur.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

UNIT = Fraction(1, 2**53)
GROW = 1.0 + 2.0**-49
SHRINK = 1.0 - 2.0**-49

Float64 = NDArray[np.float64]


def ceil_float(value: Fraction) -> float:
    """The least float64 that is not below `value` (infinite above the largest float64)."""
    try:
        nearest = value.numerator / value.denominator  # int / int is correctly rounded
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    if Fraction(nearest) < value:
        return math.nextafter(nearest, math.inf)
    return nearest


def sqrt_ceil(value: Fraction) -> float:
    """A float64 whose square is not below `value`, a few units in the last place at the most.

    `value` must lie between 2^-1000 and 2^1000, or be 0.
    """
    root = math.sqrt(ceil_float(value))
    while Fraction(root) ** 2 < value:
        root = math.nextafter(root, math.inf)
    return root


def gamma(count: int) -> Fraction:
    """n u / (1 - n u) exactly; n u must be below 1/2."""
    assert 0 <= count * UNIT < Fraction(1, 2)
    return count * UNIT / (1 - count * UNIT)


def square_sum_upper(sums: Float64, count: int) -> Float64:
    """Upper bounds of exact sums of `count` squares, from the computed `sums` (any order).

    The squared numbers may themselves be off by u relatively, as computed differences are. Squares
    that underflow lose at most 2^-1022 each, which is added.
    """
    factor = ceil_float(1 + 2 * gamma(count + 2))
    return (sums * factor + count * 2.0**-1022) * GROW


def norm_upper(values: Float64, axes: tuple[int, ...]) -> Float64:
    """Upper bounds of the Euclidean norms over `axes`."""
    count = math.prod(values.shape[axis] for axis in axes)
    return np.sqrt(square_sum_upper(np.sum(np.square(values), axis=axes), count)) * GROW
