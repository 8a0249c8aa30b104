"""The optimisation problems of CRC and CRT (Singla & Feizi 2020), for a batch of margins at once.

A margin is f: ℝᴰ → ℝ, in batches: `margin(x [n, D]) -> (f [n], ∇f [n, D])`, one function a row.
Certificate: the point nearest to x0 on f = 0, by the dual max_η min_x ½‖x − x0‖² + η f(x).
Attack: the least f in a ball, by the dual max_η min_x f(x) + (η/2)(‖x − x0‖² − ρ²).

Notable:
- The paper's Algorithms 1 and 2 take 30 bisections of 20 steps, 600 gradients. `nearest_point` and
  `worst_point` go for the same stationary points without bisection, a dozen gradients in all:
  x − x0 is parallel to ∇f(x) there, so η and x follow from one another.
- Nothing here is trusted. Whatever x and η come out, `certify.curvature_dual` bounds the dual value
  from below at *this* x.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Margin = Callable[[Tensor], tuple[Tensor, Tensor]]
SLOW = 0.9
"""A step that leaves more than this share of the residual has overshot, to and fro."""
CAP = 1 - 1e-3
"""η stays below this share of its limit 1/C: at the limit the problem is not strictly convex, and
the bound at an inexact minimiser is void."""


def nearest_point(
    margin: Margin, x0: Tensor, concave: Tensor, convex: Tensor, steps: int = 15
) -> tuple[Tensor, Tensor]:
    """The certificate problem by projection: x → x0 − η·∇f(x), η of the linearised f = 0, capped.

    Where f is positive at the cap the fixed point is the minimiser for η = cap: the best that
    duality gives. A whole step is taken as long as the residual falls, and half of the last one
    where it hardly does, down to 1/(1 + ηM), with which the paper's iteration never fails.

    Args:
        margin: f with its gradient.
        x0: [n, D], f(x0) > 0.
        concave: [n], C = −m > 0.
        convex: [n], M > 0.
        steps: gradients.

    Returns:
        x [n, D] and η [n], 0 ≤ η < 1/C.
    """
    step, before = torch.ones_like(concave), torch.full_like(concave, torch.inf)
    cap = CAP / concave.clamp(min=torch.finfo(x0.dtype).tiny)
    x, eta = x0, torch.zeros_like(cap)
    for _ in range(steps):
        value, slope = margin(x)
        distance = value + ((x0 - x) * slope).sum(1)
        square = (slope * slope).sum(1).clamp(min=torch.finfo(x0.dtype).tiny)
        eta = torch.minimum((distance / square).clamp(min=0), cap)
        residual = x - x0 + eta[:, None] * slope
        length = torch.linalg.vector_norm(residual, dim=1)
        least = 1 / (1 + eta * convex)
        step = torch.where(length > SLOW * before, torch.maximum(step / 2, least), step)
        x, before = x - step[:, None] * residual, length
    return x, eta


def worst_point(
    margin: Margin, x0: Tensor, radius: float, concave: Tensor, steps: int = 10
) -> Tensor:
    """The attack problem by x ← x0 − ∇f(x)/η, η = max(‖∇f(x)‖/ρ, C).

    A fixed point is the minimiser for its η, which Algorithm 2 keeps at C or above: there
    f + (η/2)‖x − x0‖² is convex. On the sphere (η = ‖∇f‖/ρ) it is the worst point of the ball
    (Theorem 2); where C is too large for that it lies inside.

    Args:
        margin: f with its gradient.
        x0: [n, D].
        radius: ρ.
        concave: [n], C = −m > 0; 0 goes to the sphere always.
        steps: gradients.

    Returns:
        x [n, D].
    """
    x = x0
    for _ in range(steps):
        _, slope = margin(x)
        length = torch.linalg.vector_norm(slope, dim=1)
        eta = torch.maximum(length / radius, concave)
        x = torch.where(eta[:, None] > 0, x0 - slope / eta[:, None], x0)
    return x
