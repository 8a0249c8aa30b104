"""Algorithms 1 and 2 of CRC and CRT (Singla & Feizi 2020) as printed: 30 bisections of 20 steps."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.lipschitz.curvature_search import Margin

BISECTIONS, STEPS = 30, 20
NEAR_ENOUGH = 1e-5
"""‖∇‖ at which the paper takes an inner problem for solved."""


def algorithm_1(
    margin: Margin, x0: Tensor, concave: Tensor, convex: Tensor
) -> tuple[Tensor, Tensor]:
    """Algorithm 1, Certificate optimization.

    Args:
        margin: f with its gradient.
        x0: [n, D].
        concave: [n], −m > 0.
        convex: [n], M > 0.

    Returns:
        x [n, D] and η [n].
    """
    steepest = torch.maximum(concave, convex)
    low, high = -1 / convex, 1 / concave
    eta, x = (low + high) / 2, x0
    for _ in range(BISECTIONS):
        eta = (low + high) / 2
        for _ in range(STEPS):
            _, slope = margin(x)
            gradient = eta[:, None] * slope + (x - x0)
            moving = torch.linalg.vector_norm(gradient, dim=1, keepdim=True) >= NEAR_ENOUGH
            if not moving.any():
                break
            damping = (eta * steepest).abs()[:, None]
            x = torch.where(moving, x - gradient / (1 + damping), x)
        ahead = margin(x)[0] > 0
        low, high = torch.where(ahead, eta, low), torch.where(ahead, high, eta)
    return x, eta


def algorithm_2(
    margin: Margin, x0: Tensor, concave: Tensor, steepest: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    """Algorithm 2, Attack optimization.

    Args:
        margin: f with its gradient.
        x0: [n, D].
        concave: [n], −m > 0.
        steepest: [n], K ≥ max(−m, M).
        radius: ρ.

    Returns:
        x [n, D] and η [n].
    """
    low, high = concave, 20 * (1 + concave)
    eta, x = (low + high) / 2, x0
    for _ in range(BISECTIONS):
        eta = (low + high) / 2
        for _ in range(STEPS):
            _, slope = margin(x)
            gradient = slope + eta[:, None] * (x - x0)
            moving = torch.linalg.vector_norm(gradient, dim=1, keepdim=True) >= NEAR_ENOUGH
            if not moving.any():
                break
            x = torch.where(moving, x - gradient / (steepest + eta)[:, None], x)
        inside = torch.linalg.vector_norm(x - x0, dim=1) < radius
        low, high = torch.where(inside, low, eta), torch.where(inside, eta, high)
    return x, eta
