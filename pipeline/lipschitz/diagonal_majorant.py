"""Diagonal T with GᵀG ⪯ T (Fazlyab et al. 2023, Theorem 2): SN, AOL and SLL, rounded up.

    SN:   T = ‖G‖²·I
    AOL:  T_ii = Σ_j |GᵀG|_ij
    SLL:  T_ii = Σ_j |GᵀG|_ij q_j/q_i, any q > 0

A map ψ that acts on each entry, with slopes in [−s, s], has
    ‖G(ψ(y) − ψ(y'))‖² ≤ Σ_i T_ii (ψ(y)_i − ψ(y')_i)² ≤ s²·‖T^½(y − y')‖²,
so x ↦ Gψ(Wx) has the constant s·‖T^½ W‖, which is at most s·‖G‖·‖W‖ for SN and often less for the
others. (The paper has it from an LMI; these two lines will do.)
"""

from __future__ import annotations

import numpy as np

from pipeline.lipschitz.curvature_bound import scaled_norm_bound
from pipeline.lipschitz.inexact import Inexact
from pipeline.lipschitz.rounding import (
    UNDERFLOW,
    Float64,
    gamma,
    mul_up,
    sqrt_upper,
    sum_upper,
    up,
)

CHOICES = ("SN", "AOL", "SLL")


def majorant(outer: Inexact, choice: str) -> Float64:
    """The diagonal of T, [h].

    Args:
        outer: G, [d, h].
        choice: of `CHOICES`.

    Raises:
        ValueError: another choice.
    """
    if choice not in CHOICES:
        raise ValueError(f"T is {choice!r}, expected one of {', '.join(CHOICES)}")
    width = outer.matrix.shape[1]
    if choice == "SN":
        norm = outer.norm_bound().value
        return np.full(width, mul_up(norm, norm))
    absolute = np.abs(outer.matrix)
    # |GᵀG| exactly, from above: rounding of the product, and ‖GᵀG − G*ᵀG*‖ ≤ e(2‖G‖ + e).
    gram = np.abs(outer.matrix.T @ outer.matrix)
    terms = gamma(len(absolute) + 2)
    gram = up(gram + up(up(terms * up(1 + terms)) * up((absolute.T @ absolute) * (1 + 1e-9))))
    gram = up(gram + len(absolute) * UNDERFLOW)
    error = mul_up(outer.error, up(2 * outer.size + outer.error))
    if choice == "AOL":
        return up(sum_upper(gram, axis=1) + error)
    lengths = np.linalg.norm(outer.matrix, axis=0)
    q = np.maximum(lengths, 1e-9 * (lengths.max() or 1.0))  # positive numbers of our choice
    return up(mul_up(sum_upper(mul_up(gram, q[None, :]), axis=1), up(up(1.0 / q))) + error)


def inner_norm(weight: Float64, diagonal: Float64) -> float:
    """‖T^½ W‖, rounded up.

    Args:
        weight: W [h, D], float32 numbers in float64.
        diagonal: of T, [h].
    """
    return float(sqrt_upper(scaled_norm_bound(weight, diagonal)))
