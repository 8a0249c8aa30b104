"""x + G·φ(Wx + b) proved and evaluated again (Fazlyab et al. 2023, Theorem 2).

For slopes in [α, β], c = (α + β)/2, s = (β − α)/2 and any diagonal T with GᵀG ⪯ T the constant is
at most ‖I + c·GW‖ + s·‖T^½ W‖: φ(y) = c·y + ψ(y), and ‖G(ψ(y) − ψ(y'))‖² ≤ s²·‖T^½(y − y')‖².

Notable: T is worked out here, the three of the paper one after the other: ‖G‖²·I, the row sums of
|GᵀG| (Gershgorin), and these weighted by the lengths of G's columns. Nothing of the certificate's
proof is used but its claim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from pipeline.verify.elementary import ERROR_UNITS, SLOPES, activate
from pipeline.verify.gram import spectral_upper_bounds
from pipeline.verify.layers import Layer
from pipeline.verify.norms import Proof
from pipeline.verify.outward import GROW, Float64, ceil_float, gamma, norm_upper

LEVELS = 25
"""Squarings for a norm that is nobody's claim."""
TINY = 2.0**-900


def prove_slope_residual(layer: Layer) -> Proof:
    """Whether the claim of a block can be proved."""
    assert layer.weight is not None and layer.outer is not None
    inner, outer = layer.weight, layer.outer
    least, most = SLOPES[layer.function]
    center, spread = float((least + most) / 2), float((most - least) / 2) * GROW * GROW
    # c is any number: the spread about the float c is what counts.
    spread = max(spread, ceil_float(max(most - Fraction(center), Fraction(center) - least)))
    sizes = _size(outer) * _size(inner)
    looped = np.eye(len(outer)) + center * (outer @ inner)
    rounding = ceil_float(gamma(outer.shape[1] + 4)) * (center * sizes + 1 + _size(looped))
    first = (_norm(looped) + rounding * GROW + TINY) * GROW
    best = math.inf
    for diagonal in _majorants(outer):
        scaled = np.sqrt(diagonal)[:, None] * inner
        error = ceil_float(gamma(4)) * _size(scaled)
        best = min(best, (first + spread * (_norm(scaled) + error) * GROW) * GROW)
        if best <= layer.bound:
            break
    return Proof(best, best <= layer.bound, "Theorem 2")


def evaluate_slope_residual(layer: Layer, x: Float64) -> Float64:
    """[B, D] -> [B, D]."""
    assert layer.weight is not None and layer.bias is not None and layer.outer is not None
    hidden = activate(layer.function, x @ layer.weight.T + layer.bias)
    return x + hidden @ layer.outer.T


def slope_residual_error(
    layer: Layer, inner: float, outer: float, at_zero: float
) -> tuple[int, float, float]:
    """N, a and B of the recursion in `forward`: the matrix I + β|G||W|, the bias |G|(β|b| + …).

    Args:
        layer: of this kind.
        inner: not below ‖|W|‖.
        outer: not below ‖|G|‖.
        at_zero: |φ(0)|.
    """
    assert layer.weight is not None and layer.bias is not None
    most = float(SLOPES[layer.function][1])
    bias = float(norm_upper(layer.bias, (0,)))
    entries = math.sqrt(len(layer.weight)) * (1 + at_zero)
    fan_in = sum(layer.weight.shape) + ERROR_UNITS + 8
    absolute = (1 + outer * most * inner * GROW) * GROW
    return fan_in, absolute, (outer * (most * bias + entries) * GROW + TINY) * GROW


def _majorants(outer: Float64) -> Iterator[Float64]:
    """Diagonals of T with GᵀG ⪯ T."""
    norm = _norm(outer)
    width = outer.shape[1]
    yield np.full(width, norm * norm * GROW)
    absolute = np.abs(outer)
    terms = ceil_float(gamma(len(outer) + 4))
    gram = np.abs(outer.T @ outer) + terms * (absolute.T @ absolute) * (1 + 1e-9)
    gram = gram * (1 + ceil_float(gamma(2 * width + 8))) + len(outer) * 2.0**-1000
    yield gram.sum(axis=1) * GROW
    lengths = np.sqrt(np.square(outer).sum(axis=0))
    scales = np.maximum(lengths, 1e-9 * (lengths.max() or 1.0))
    yield (gram * scales).sum(axis=1) / scales * GROW


def _norm(matrix: Float64) -> float:
    """Upper bound of the spectral norm, tight to 1e-7 or so."""
    if not matrix.any():
        return 0.0
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return float(spectral_upper_bounds(np.ascontiguousarray(tall)[None, None], 0.0, LEVELS)[0])


def _size(matrix: Float64) -> float:
    """Upper bound of the Frobenius norm."""
    return float(norm_upper(matrix, (0, 1)))
