"""Outward rounding: float64 arithmetic whose results are never below (or above) the exact ones.

Notable:
- The machine model of docs/certificate.md: every operation is IEEE binary64 to nearest, a dot
  product of length n is summed in any order, and a product may lose `UNDERFLOW` absolutely.
- One `nextafter` after one correctly rounded operation is enough for scalars; sums of n terms are
  inflated by 1 + γ_2n ≥ 1/(1 − γ_n), since the *computed* sum is what we hold.
- Everything works on scalars and elementwise on arrays. An overflow gives inf and a NaN stays NaN:
  both lose every comparison that could certify something.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Value = TypeVar("Value", float, Float64)

UNIT = 2.0**-53
"""u, the unit roundoff of float64."""
UNDERFLOW = 2.0**-1000
"""More than one product can lose by underflow, gradual or flushed to zero."""

silent = np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")
"""Decorator: overflow and NaN are results here, not events worth a warning."""


def up(x: Value) -> Value:
    """The next float64 above; not below the exact result if `x` came of one rounded operation."""
    return _plain(np.nextafter(x, np.inf))


def down(x: Value) -> Value:
    """The next float64 below."""
    return _plain(np.nextafter(x, -np.inf))


def gamma(n: int) -> float:
    """Upper bound of γ_n = n·u/(1 − n·u), the relative error of a dot product of length n."""
    assert 0 <= n < 2**50, n
    nu = n * UNIT  # exact: a power of two times an integer below 2^53
    return up(nu / (1 - nu)) if n else 0.0  # 1 − nu is exact for n < 2^53


@silent
def add_up(first: Value, *rest: Value | float) -> Value:
    """Upper bound of the sum of non-negative terms."""
    total = first
    for term in rest:
        total = up(_plain(np.add(total, term)))
    return total


@silent
def mul_up(first: Value, *rest: Value | float) -> Value:
    """Upper bound of the product of non-negative factors."""
    product = first
    for factor in rest:
        product = up(_plain(np.multiply(product, factor)))
    return product


@silent
def sqrt_upper(x: Value) -> Value:
    """Upper bound of the square root; of 0 it is 0."""
    root = np.sqrt(x)
    return _plain(np.where(root == 0, 0.0, np.nextafter(root, np.inf)))


@silent
def sum_upper(values: Float64, axis: int | tuple[int, ...] | None = None) -> Float64:
    """Upper bound of the sum of non-negative `values` along `axis` (all of them by default)."""
    total = np.asarray(values.sum(axis=axis), dtype=np.float64)
    count = values.size // max(total.size, 1)
    return np.asarray(mul_up(total, up(1 + gamma(2 * count))))


@silent
def squares_upper(values: Float64) -> Float64:
    """Upper bound of the sum of squares of every [i, ...]: [F, ...] -> [F]."""
    flat = values.reshape(len(values), -1)
    total = np.einsum("fi,fi->f", flat, flat)
    count = flat.shape[1]
    return add_up(mul_up(total, up(1 + gamma(2 * count + 2))), count * UNDERFLOW)


@silent
def frobenius_upper(values: Float64) -> float:
    """Upper bound of the Frobenius norm of all of `values`; exact powers of two scale it."""
    if not values.any():
        return 0.0
    scaled, exponent = scaled_to_one(values)
    return scaled_back(float(sqrt_upper(squares_upper(scaled.reshape(1, -1)))[0]), exponent)


@silent
def scaled_to_one(values: Float64) -> tuple[Float64, int]:
    """`values`·2^-e and e, such that the largest magnitude lies in [1/2, 1).

    Exact, but for entries more than 2^1000 times smaller than the largest: these lose at most
    2^-1022 absolutely, which `UNDERFLOW` covers. `values` must be finite and not all zero.
    """
    exponent = math.frexp(float(np.abs(values).max()))[1]
    return np.ldexp(values, -exponent), exponent


@silent
def scaled_back(bound: Value, exponent: int) -> Value:
    """Upper bound of `bound`·2^`exponent`: inf on overflow, rounded up if subnormal."""
    return up(_plain(np.ldexp(bound, exponent)))


def _plain(x: Any) -> Any:
    """NumPy scalars as Python floats, arrays as they are."""
    return float(x) if np.ndim(x) == 0 else x
