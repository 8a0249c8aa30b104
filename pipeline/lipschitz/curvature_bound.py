"""Certified curvature of margins (CRC, Theorems 3 and 4): how concave f_j − f_i can be.

    ∇²(f_j − f_i)(x) ⪰ −C_ji·I for every x,  C_ji the number proved here (the paper's −m)

With a^(I) = ∂(f_j − f_i)/∂x^(I) behind the activation of layer I and J_I = ∂z^(I)/∂x (Lemma 1),

    ∇² = Σ_I J_Iᵀ diag(σ''(z^(I)) ∘ a^(I)) J_I
       ⪰ −Σ_I ‖diag(s^(I))·W^(I)‖²·(g^(I−1)‖W^(I−1)‖ ⋯ g^(1)‖W^(1)‖)²·I,

s_n² ≥ −σ''·a_n, that is max(h_U·fall_n, −h_L·rise_n) where −fall ≤ a^(I) ≤ rise. In the last layer
a = w = w_j − w_i; before it, as σ' lies in [0, g], with W⁺ and W⁻ the positive and negative parts,

    rise^(I−1) = g·(rise·W⁺ + fall·W⁻),   fall^(I−1) = g·(fall·W⁺ + rise·W⁻).

For two layers this is Theorem 3. For deeper ones it is below Theorem 4, which has ‖W‖²·max_n s_n²
for ‖diag(s)·W‖² and does not tell convex from concave: by a factor of two to three in trained
networks. (The released code of CRC certifies with numbers of this kind, found by power iteration.)

Notable:
- s is rounded up to float32, so that the entries of diag(s)·W are exact in float64 and the norm is
  one of `certified_dense_norm`: no power iteration, which finds C from below.
- Only this side is needed: the certificate's η is never negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.lipschitz.dense import dense_norm_bound
from pipeline.lipschitz.rounding import (
    UNDERFLOW,
    Float64,
    add_up,
    gamma,
    mul_up,
    sqrt_upper,
    sum_upper,
    up,
)
from pipeline.lipschitz.slopes import Slopes

TABLE_SLACK = 1e-9
"""Above what is proved: another program, whose roundings differ, must be able to prove it too."""
TERM_SLACK = 1e-6
"""The same for ‖diag(s)·W‖² of deep networks, where such a program may round an s^(I)_n, which
comes of thousands of sums, to the next float32 number."""


@dataclass(frozen=True)
class CurvatureBounds:
    """What is claimed of all ordered pairs of classes."""

    table: Float64
    """C_ji: [K, K], zero on the diagonal."""
    terms: Float64 | None = None
    """‖diag(s^(I))·W^(I)‖² of deep networks: [K, K, layers]; None for one hidden layer, where C_ji
    is the term."""


def curvature_bounds(
    weights: Sequence[Float64],
    norms: Sequence[float],
    slopes: Sequence[Slopes],
    rows: Float64,
    progress: Callable[[int], None] = lambda pairs: None,
) -> CurvatureBounds:
    """C_ji for all ordered pairs of classes.

    Args:
        weights: of the hidden layers, [outputs, inputs] each, float32 numbers in float64.
        norms: proved bounds of their norms.
        slopes: of the activation behind each.
        rows: of the head, [K, d], likewise.
        progress: told how many more of the K(K − 1) pairs are done.

    Raises:
        ValueError: an activation without second derivative.
    """
    classes, layers = len(rows), len(weights)
    table, terms = np.zeros((classes, classes)), np.zeros((classes, classes, layers))
    symmetric = all(each.bend == -_curvature(each)[0] for each in slopes)
    for first in range(classes):
        for second in range(classes):
            if first == second or (symmetric and second < first):
                continue
            found = pair_terms(weights, slopes, rows[first] - rows[second])
            if layers > 1:
                found = [mul_up(term, up(1 + TERM_SLACK)) for term in found]
            bound = total_curvature(found, norms, slopes)
            for pair in {(first, second), (second, first)} if symmetric else {(first, second)}:
                table[pair], terms[pair] = bound, found
            progress(2 if symmetric else 1)
    return CurvatureBounds(table, terms if layers > 1 else None)


def _curvature(slopes: Slopes) -> tuple[float, float]:
    assert slopes.curvature is not None  # `bend` was asked before, and refuses
    return slopes.curvature


def pair_terms(
    weights: Sequence[Float64], slopes: Sequence[Slopes], difference: Float64
) -> list[float]:
    """‖diag(s^(I))·W^(I)‖² of each layer, rounded up.

    Args:
        weights: of the hidden layers.
        slopes: of the activation behind each.
        difference: w_j − w_i, each entry rounded once at most: [d].
    """
    once = up(1 + 2.0**-50)
    rise, fall = np.maximum(difference, 0.0), np.maximum(-difference, 0.0)
    found = []
    for number in reversed(range(len(weights))):
        low, high = _curvature(slopes[number])
        squares = mul_up(np.maximum(mul_up(fall, high), mul_up(rise, -low)), once)
        found.append(scaled_norm_bound(weights[number], squares))
        if number:
            rise, fall = _through(rise, fall, weights[number], slopes[number].most)
    return found[::-1]


def _through(rise: Float64, fall: Float64, weight: Float64, most: float) -> tuple[Float64, Float64]:
    """Bounds of the gradient in front of an activation and a layer, from those behind."""
    positive, negative = np.maximum(weight, 0.0), np.maximum(-weight, 0.0)
    # Two dot products of non-negative numbers, their sum, and a difference rounded before.
    grow = up(up(1 + 2 * gamma(2 * len(weight) + 2)) * (1 + 2.0**-50))
    lost = 2 * len(weight) * UNDERFLOW
    return (
        add_up(mul_up(rise @ positive + fall @ negative, most, grow), lost),
        add_up(mul_up(fall @ positive + rise @ negative, most, grow), lost),
    )


def total_curvature(
    terms: Sequence[float], norms: Sequence[float], slopes: Sequence[Slopes]
) -> float:
    """C_ji of its terms, rounded up; of one term, the term itself."""
    if len(terms) == 1:
        return terms[0]
    total, steep = terms[0], 1.0
    for term, norm, slope in zip(terms[1:], norms[:-1], slopes[:-1], strict=True):
        steep = mul_up(steep, slope.most, norm)
        total = add_up(total, mul_up(term, steep, steep))
    return mul_up(total, up(1 + TABLE_SLACK))


def scaled_norm_bound(weight: Float64, squares: Float64) -> float:
    """‖diag(s)·W‖², rounded up.

    Args:
        weight: [h, D], float32 numbers in float64.
        squares: [h], s², not negative; NaN where bounds overflowed, of which nothing is proved.
    """
    if not np.isfinite(squares).all():
        return math.inf
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
    """Theorem 4 as printed, rounded up: h·Σ_I (r^(I))²·max_n S^(I)_n (`curvature_estimate.py`)."""
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
