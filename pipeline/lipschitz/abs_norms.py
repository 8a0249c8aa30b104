"""Norms of absolute values: how much rounding an affine layer can do (docs/certificate.md §5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.lipschitz.arrays import exact_float64
from pipeline.lipschitz.polyphase import axes_of, polyphase
from pipeline.lipschitz.rounding import (
    Float64,
    frobenius_upper,
    mul_up,
    silent,
    sqrt_upper,
    sum_upper,
)


def conv_abs_norm_upper(
    weight: Any, stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0
) -> float:
    """Upper bound of the norm of the convolution with kernel |W|, for every input size.

    A kernel without signs is steepest at frequency 0, where its block is S = Σ|W_τ| over the
    polyphase taps; and ‖S‖ ≤ √(‖S‖_1·‖S‖_∞).

    Args:
        weight: [O, I, kh, kw], any float dtype; NaN and inf give inf or NaN.
        stride: of the convolution.
        padding: of the convolution.
    """
    kernel = exact_float64(weight, ("O", "I", "kh", "kw"))
    taps = polyphase(np.abs(kernel), axes_of(kernel, stride, padding))
    return _interpolated(sum_upper(taps, axis=(0, 1)))


def dense_abs_norm_upper(weight: Any) -> float:
    """Upper bound of ‖|W|‖ for a matrix [O, I]: √(‖W‖_1·‖W‖_∞)."""
    return _interpolated(np.abs(exact_float64(weight, ("O", "I"))))


@silent
def bias_norm_upper(bias: Any, positions: int) -> float:
    """Upper bound of the norm of a bias [O] added at `positions` places of every channel."""
    return mul_up(frobenius_upper(exact_float64(bias, ("O",))), sqrt_upper(float(positions)))


@silent
def _interpolated(matrix: Float64) -> float:
    """√(‖S‖_1·‖S‖_∞) of a non-negative matrix, rounded up."""
    columns, rows = (float(sum_upper(matrix, axis=axis).max()) for axis in (0, 1))
    return mul_up(sqrt_upper(columns), sqrt_upper(rows))
