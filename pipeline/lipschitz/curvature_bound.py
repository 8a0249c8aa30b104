"""Certified curvature of margins (CRC, Theorems 3 and 4): how concave f_j − f_i can be.

    ∇²(f_j − f_i)(x) ⪰ −C_ji·I for every x,  C_ji the number proved here (the paper's −m)

Two-layer networks, Theorem 3, with w = w_j − w_i: ∇² = Σ_n w_n σ''(z_n) W_n W_nᵀ is not below
−Σ_n s_n² W_n W_nᵀ, s_n² = max(−h_L·max(w_n, 0), h_U·max(−w_n, 0)); hence C_ji = ‖diag(s)·W‖².
Deeper ones, Theorem 4: C_ji = h·Σ_I (r^(I))²·max_n S^(I)_n (formula in `curvature_estimate.py`).

Notable:
- s is rounded up to float32, so that the entries of diag(s)·W are exact in float64 and the norm is
  one of `certified_dense_norm`: no power iteration, which finds C from below.
- Only this side is needed: the certificate's η is never negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.lipschitz.dense import dense_norm_bound
from pipeline.lipschitz.rounding import Float64, add_up, mul_up, sqrt_upper, sum_upper, up
from pipeline.lipschitz.slopes import Slopes

TABLE_SLACK = 1e-9
"""Above what is proved: another program, whose roundings differ, must be able to prove it too."""


def curvature_bounds(
    weights: Sequence[Float64],
    norms: Sequence[float],
    slopes: Sequence[Slopes],
    rows: Float64,
    progress: Callable[[int], None] = lambda pairs: None,
) -> Float64:
    """C_ji for all ordered pairs of classes: [K, K], zero on the diagonal.

    Args:
        weights: of the hidden layers, [outputs, inputs] each, float32 numbers in float64.
        norms: proved bounds of their norms.
        slopes: of the activation behind each.
        rows: of the head, [K, d], likewise.
        progress: told how many more of the K(K − 1) pairs are done.

    Raises:
        ValueError: an activation without second derivative.
    """
    classes = len(rows)
    table = np.zeros((classes, classes))
    symmetric = all(each.bend == -_curvature(each)[0] for each in slopes) or len(weights) > 1
    for first in range(classes):
        for second in range(classes):
            if first == second or (symmetric and second < first):
                continue
            difference = rows[first] - rows[second]
            if len(weights) == 1:
                bound = _two_layers(weights[0], slopes[0], difference)
            else:
                bound = deep_bound(weights, norms, slopes, difference)
            table[first, second] = bound
            if symmetric:
                table[second, first] = bound
            progress(2 if symmetric else 1)
    return table


def _curvature(slopes: Slopes) -> tuple[float, float]:
    assert slopes.curvature is not None, "asked through `bend` before"
    return slopes.curvature


def _two_layers(weight: Float64, slopes: Slopes, difference: Float64) -> float:
    """‖diag(s)·W‖², rounded up."""
    low, high = _curvature(slopes)
    # The difference of two float32 numbers may be rounded once.
    squares = mul_up(
        np.where(difference > 0, -low * difference, -high * difference), up(1 + 2.0**-50)
    )
    return scaled_norm_bound(weight, squares)


def scaled_norm_bound(weight: Float64, squares: Float64) -> float:
    """‖diag(s)·W‖², rounded up.

    Args:
        weight: [h, D], float32 numbers in float64.
        squares: [h], s², not negative.
    """
    scales = sqrt_upper(squares).astype(np.float32)
    scales = np.where(squares > 0, np.nextafter(scales, np.float32(np.inf)), np.float32(0))
    if not scales.any():
        return 0.0
    norm = dense_norm_bound(scales.astype(np.float64)[:, None] * weight).value
    return mul_up(norm, norm)


def deep_bound(
    weights: Sequence[Float64],
    norms: Sequence[float],
    slopes: Sequence[Slopes],
    difference: Float64,
) -> float:
    """Theorem 4, rounded up."""
    steep = [norms[0]]
    for norm, slope in zip(norms[1:], slopes[:-1], strict=True):
        steep.append(mul_up(slope.most, norm, steep[-1]))
    paths = mul_up(np.abs(difference), up(1 + 2.0**-50))
    total = 0.0
    for number in reversed(range(len(weights))):
        term = mul_up(slopes[number].bend, steep[number], steep[number], float(paths.max()))
        total = add_up(total, term)
        if number:
            each = mul_up(paths[:, None], np.abs(weights[number]))
            paths = mul_up(sum_upper(each, axis=0), slopes[number].most)
    return mul_up(total, up(1 + TABLE_SLACK))
