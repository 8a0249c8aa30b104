"""The training estimate of how concave margins can be: −m of CRC, for all ordered pairs of classes.

    ∇²(z_j − z_i) ⪰ −C_ji·I,   C_ji ≈ Σ_I ‖diag(s^(I))·W^(I)‖²·(g‖W^(I−1)‖ ⋯ g‖W^(1)‖)²

as `curvature_bound` proves it: s from the concave side alone, per unit and by sign. It limits the
multiplier of CRT's inner problem; the regulariser is `curvature_estimate`, several times larger.
(The released code of CRC makes the same distinction.)

Notable:
- No gradient goes through it. The norms are of power iteration, whose vectors, one for each pair
  and layer, persist from step to step; so this is no bound.
- K² vectors a layer: meant for up to `MOST_CLASSES` classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.lipschitz.power_iteration import normalized
from pipeline.lipschitz.slopes import Slopes

MOST_CLASSES = 20


@torch.no_grad()
def concavity_table(
    weights: Sequence[Tensor],
    rows: Tensor,
    norms: Sequence[Tensor],
    slopes: Sequence[Slopes],
    vectors: Sequence[Tensor],
    iterations: int,
) -> tuple[Tensor, list[Tensor]]:
    """C for all ordered pairs, and the vectors that were reached.

    Args:
        weights: of the hidden layers, each [outputs, inputs].
        rows: of the head, [K, d].
        norms: estimates of the norms of `weights`.
        slopes: of the activation after each; with second derivatives.
        vectors: for each layer, [K², inputs].
        iterations: of power iteration.

    Returns:
        [K, K], entry (j, i) of z_j − z_i, and vectors of the same shapes.
    """
    difference = (rows[:, None] - rows[None]).flatten(0, 1)  # [K², d]
    rise, fall = difference.clamp(min=0), (-difference).clamp(min=0)
    terms, reached = [], []
    for number in reversed(range(len(weights))):
        weight, slope = weights[number], slopes[number]
        assert slope.curvature is not None  # the regulariser's `bend` refuses before
        low, high = slope.curvature
        squares = torch.maximum(high * fall, -low * rise)  # s²
        vector = normalized(vectors[number], 0.0)
        for _ in range(iterations):
            vector = normalized((squares * (vector @ weight.T)) @ weight, vector)
        terms.append((squares * (vector @ weight.T).square()).sum(1))
        reached.append(vector)
        if number:
            best, least = weight.clamp(min=0), (-weight).clamp(min=0)
            rise, fall = (
                slope.most * (rise @ best + fall @ least),
                slope.most * (fall @ best + rise @ least),
            )
    total, steep = torch.zeros_like(terms[0]), torch.ones_like(norms[0])
    for number, term in enumerate(reversed(terms)):
        total = total + term * steep**2
        steep = steep * slopes[number].most * norms[number]
    return total.view(len(rows), len(rows)), reached[::-1]
