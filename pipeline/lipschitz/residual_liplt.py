"""LipLT certified for residual networks (Fazlyab et al. 2023, Lemma 1, Theorems 2 and 3).

    y_k = W_k x_k + b_k,   x_{k+1} = H_k x_k + G_k φ_k(y_k),   logits = W_L x_L + b_L         (14)

With Ĥ_k = H_k + c_k G_k W_k, c the centre and s the spread of the activation's slopes,

    m_{k+1} = ‖W_{k+1} Ĥ_k⋯Ĥ_0‖ + Σ_{j≤k} s_j ‖W_{k+1} Ĥ_k⋯Ĥ_{j+1} G_j‖ m_j,   m_0 = ‖W_0‖.   (16)

A sequential network is the case H = 0, G = I; a residual one has H = I.

Notable:
- All products are explicit matrices with proved errors (`inexact.py`), normed by Cholesky; stages
  of more than `MOST` entries are refused.
- The term of j = 0 is bounded by Theorem 2 too, s_0·‖T^½ W_0‖ with T a diagonal majorant of the
  product before ψ_0 (SN, AOL or SLL), and the least of them counts.
- For the margin f_j − f_i the row w_j − w_i stands in place of W_L, as in `liplt_bound`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.diagonal_majorant import inner_norm, majorant
from pipeline.lipschitz.exact_map import ExactMap, explicit_product
from pipeline.lipschitz.inexact import Inexact
from pipeline.lipschitz.liplt_bound import LipLTBound
from pipeline.lipschitz.pairwise import pairwise_distance_upper
from pipeline.lipschitz.rounding import Float64, add_up, mul_up, up
from pipeline.lipschitz.slopes import Slopes

MOST = 1 << 25
"""Entries of an explicit matrix: 256 MiB."""
TABLE_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class ResidualStage:
    """X ↦ H x + G φ(W x + b)."""

    inner: ExactMap
    """W."""
    outer: ExactMap | None = None
    """G; None for the identity."""
    skip: bool = True
    """H is the identity; else 0."""

    def matrices(self) -> tuple[Inexact, Inexact]:
        """W and G, exactly.

        Raises:
            ValueError: one is too large to be written out.
        """
        inner = _explicit(self.inner)
        outer = _explicit(self.outer) if self.outer is not None else _identity(len(inner.matrix))
        return inner, outer


def residual_liplt_bound(
    stages: Sequence[ResidualStage],
    slopes: Sequence[Slopes],
    rows: Float64,
    refine: bool = False,
) -> LipLTBound:
    """Bound every margin of a network.

    Args:
        stages: k = 0 … L − 1.
        slopes: of φ_0 … φ_{L−1}.
        rows: W_L, [K, d], float32 numbers in float64.
        refine: bound the terms of j = 0 by Theorem 2 too. A certificate does not: its reader is
            to follow from `products` alone.

    Returns:
        The bounds; `products` has (k, 0) for W_k Ĥ_{k−1}⋯Ĥ_0, and (k, j + 1) for
        W_k Ĥ_{k−1}⋯Ĥ_{j+1} G_j.

    Raises:
        ValueError: a stage is too large, or H = I where its input and output differ.
    """
    pairs = [stage.matrices() for stage in stages]
    looped = [
        _looped(stage, inner, outer, slope.center)
        for stage, (inner, outer), slope in zip(stages, pairs, slopes, strict=True)
    ]
    products: dict[tuple[int, int], NormBound] = {}
    constants: list[float] = []
    for k, (inner, _) in enumerate(pairs):
        moving, behind = inner, []
        for j in reversed(range(k)):
            behind.append(moving @ pairs[j][1])  # W_k Ĥ_{k−1}⋯Ĥ_{j+1} G_j
            moving = moving @ looped[j]
        for start, part in enumerate([moving, *reversed(behind)]):
            products[k, start] = part.norm_bound()
        total = products[k, 0].value
        for j in range(k):
            term = mul_up(products[k, j + 1].value, constants[j])
            if j == 0 and refine:
                term = min(term, _theorem_2(behind[-1], stages[0].inner))
            total = add_up(total, mul_up(slopes[j].spread, term))
        constants.append(total)
    distances, lengths = _head(pairs, looped, rows)
    margins = _combined(distances, constants, slopes)
    np.fill_diagonal(margins, 0.0)
    return LipLTBound(products, tuple(constants), margins, _combined(lengths, constants, slopes))


def layer_bound(stage: ResidualStage, slope: Slopes) -> tuple[float, str]:
    """One stage by itself (Theorem 2): ‖H + c·GW‖ + s·min_T ‖T^½ W‖, and the T that it rests on.

    Raises:
        ValueError: as `residual_liplt_bound`.
    """
    inner, outer = stage.matrices()
    first = _looped(stage, inner, outer, slope.center).norm_bound().value
    found = {
        choice: inner_norm(_weight(stage.inner), majorant(outer, choice))
        for choice in ("SN", "AOL", "SLL")
    }
    best = min(found, key=lambda choice: found[choice])
    return add_up(first, mul_up(slope.spread, found[best])), best


def _theorem_2(product: Inexact, inner: ExactMap) -> float:
    """The least ‖T^½ W_0‖ over AOL and SLL; SN is ‖product‖·‖W_0‖."""
    weight = _weight(inner)
    return min(inner_norm(weight, majorant(product, choice)) for choice in ("AOL", "SLL"))


def _head(
    pairs: Sequence[tuple[Inexact, Inexact]], looped: Sequence[Inexact], rows: Float64
) -> tuple[list[Float64], list[Float64]]:
    """For R Ĥ_{L−1}⋯Ĥ_0 and every R Ĥ_{L−1}⋯Ĥ_{j+1} G_j: distances [K, K] and lengths [K]."""
    moving, parts = Inexact(rows), []
    for j in reversed(range(len(pairs))):
        parts.append(moving @ pairs[j][1])
        moving = moving @ looped[j]
    parts.append(moving)
    distances, lengths = [], []
    for part in reversed(parts):
        apart = add_up(pairwise_distance_upper(part.matrix), 2 * part.error * (1 + 2.0**-50))
        np.fill_diagonal(apart, 0.0)
        distances.append(apart)
        norms = np.sqrt((part.matrix * part.matrix).sum(1)) * (1 + 1e-9)
        lengths.append(add_up(norms, part.error))
    return distances, lengths


def _combined(
    norms: Sequence[Float64], constants: Sequence[float], slopes: Sequence[Slopes]
) -> Float64:
    """norms[0] + Σ_j s_j·norms[j + 1]·m_j, rounded up, with the slack for another program."""
    total = norms[0]
    for j, constant in enumerate(constants):
        total = add_up(total, mul_up(norms[j + 1], slopes[j].spread, constant))
    return mul_up(total, up(1 + TABLE_SLACK))


def _looped(stage: ResidualStage, inner: Inexact, outer: Inexact, center: float) -> Inexact:
    """Ĥ = H + c·GW."""
    product = (outer @ inner).scaled(center)
    if not stage.skip:
        return product
    if product.matrix.shape[0] != product.matrix.shape[1]:
        raise ValueError(
            f"a stage from {product.matrix.shape[1]} to {product.matrix.shape[0]} numbers has no "
            "identity beside it: take skip=False there"
        )
    return product + _identity(len(product.matrix))


def _explicit(linear: ExactMap) -> Inexact:
    """The matrix of one map: its entries are weights, so it is exact."""
    if linear.inputs * linear.outputs > MOST:
        raise ValueError(
            f"a map from {linear.inputs} to {linear.outputs} numbers is too large to be written "
            "out, and LipLT of residual networks needs that"
        )
    matrix = explicit_product([linear]).numpy()
    return Inexact(matrix if matrix.shape[0] == linear.outputs else matrix.T)


def _identity(size: int) -> Inexact:
    return Inexact(np.eye(size))


def _weight(linear: ExactMap) -> Float64:
    """The matrix of one map, whose entries are float32 numbers."""
    return np.asarray(_explicit(linear).matrix)
