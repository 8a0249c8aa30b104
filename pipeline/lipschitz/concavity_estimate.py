"""The training estimate of how concave margins can be: −m of CRC, for all ordered pairs of classes.

    ∇²(z_j − z_i) ⪰ −C_ji·I,   C_ji ≈ Σ_I ‖diag(s^(I))·W^(I)‖²·(g‖W^(I−1)‖ ⋯ g‖W^(1)‖)²

as `curvature_bound` proves it: s from the concave side alone, per unit and by sign. It limits the
multiplier of CRT's inner problem; the regulariser is `curvature_estimate`, several times larger.
(The released code of CRC makes the same distinction.)

Notable:
- No gradient goes through it. The norms are of power iteration, whose vectors, one for each pair
  and layer, persist from step to step; so this is no bound.
- K(K − 1) vectors a layer: meant for up to `MOST_CLASSES` classes.
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
    advance: bool,
) -> tuple[Tensor, list[Tensor]]:
    """C for all ordered pairs, and the vectors one power iteration later.

    Args:
        weights: of the hidden layers, each [outputs, inputs].
        rows: of the head, [K, d].
        norms: estimates of the norms of `weights`.
        slopes: of the activation after each; with second derivatives.
        vectors: for each layer, [K(K − 1), inputs], unit vectors.
        advance: iterate; otherwise the vectors come back as they are.

    Returns:
        [K, K], entry (j, i) of z_j − z_i, and vectors of the same shapes.
    """
    first, second = torch.triu_indices(len(rows), len(rows), 1, device=rows.device)
    difference = rows[first] - rows[second]
    rise, fall = difference.clamp(min=0), (-difference).clamp(min=0)
    terms, reached = [], list(vectors)
    for number in reversed(range(len(weights))):
        weight, slope, vector = weights[number], slopes[number], vectors[number]
        assert slope.curvature is not None  # the regulariser's `bend` refuses before
        low, high = slope.curvature
        # s², of these pairs and of the same the other way round.
        squares = torch.cat(
            [torch.maximum(high * fall, -low * rise), torch.maximum(high * rise, -low * fall)]
        )
        image = vector @ weight.T
        terms.append((squares * image.square()).sum(1))
        if advance:
            reached[number] = normalized((squares * image) @ weight, vector)
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
    places = torch.cat([first, second]), torch.cat([second, first])
    return rows.new_zeros(len(rows), len(rows)).index_put(places, total), reached
