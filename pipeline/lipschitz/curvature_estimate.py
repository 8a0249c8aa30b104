"""The training estimate of the curvature of margins (CRC, Theorem 4), all pairs at once.

    ‖∇²(z_j − z_i)‖ ≤ h·Σ_I (r^(I))²·max_n S^(I)_n,   r^(I) = g·‖W^(I)‖·r^(I−1),
    S^(L−1) = |w_j − w_i|,  S^(I) = g·S^(I+1)·|W^(I+1)|

for a fully connected network with |σ'| ≤ g and |σ''| ≤ h. Differentiable; the norms are estimates
of power iteration, so this is no bound. Certification is `curvature_bound`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.lipschitz.slopes import Slopes


def curvature_table(
    weights: Sequence[Tensor], rows: Tensor, norms: Sequence[Tensor], slopes: Sequence[Slopes]
) -> Tensor:
    """K(W, j, i) for all pairs of classes: [K, K], symmetric, zero on the diagonal.

    Args:
        weights: of the hidden layers, each [outputs, inputs].
        rows: of the head, [K, d].
        norms: estimates of the norms of `weights`.
        slopes: of the activation after each.

    Raises:
        ValueError: an activation without second derivative, or a convolution.
    """
    if any(weight.ndim != 2 for weight in weights):
        raise ValueError("curvature bounds are for fully connected networks")
    classes = len(rows)
    first, second = torch.triu_indices(classes, classes, 1, device=rows.device)
    paths = (rows[first] - rows[second]).abs()  # [pairs, d]
    steepness, steep = [norms[0]], norms[0]
    for norm, slope in zip(norms[1:], slopes[:-1], strict=True):
        steep = slope.most * norm * steep
        steepness.append(steep)
    total = torch.zeros_like(paths[:, 0])
    for number in reversed(range(len(weights))):
        total = total + slopes[number].bend * steepness[number] ** 2 * paths.amax(1)
        if number:
            paths = slopes[number].most * (paths @ weights[number].abs())
    table = rows.new_zeros(classes, classes).index_put((first, second), total)
    return table + table.T
