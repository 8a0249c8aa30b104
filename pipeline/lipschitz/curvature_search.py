"""The optimisation problems of CRC and CRT (Singla & Feizi 2020), for a batch of margins at once.

A margin is f: ℝᴰ → ℝ, in batches: `margin(x [n, D]) -> (f [n], ∇f [n, D])`, one function a row.
Certificate: the point nearest to x0 on f = 0, by the dual max_η min_x ½‖x − x0‖² + η f(x).
Attack: the least f in a ball, by the dual max_η min_x f(x) + (η/2)(‖x − x0‖² − ρ²).

Notable:
- The paper's Algorithms 1 and 2 take 30 bisections of 20 steps, 600 gradients. `nearest_point` and
  `worst_point` go for the same stationary points without bisection, a dozen gradients in all:
  x − x0 is parallel to ∇f(x) there, so η and x follow from one another.
- A point that is not yet the minimiser for its η may prove nothing with this η, and nearly all with
  a lesser one. So each point is judged with the η that is best for it (`best_multiplier`).
- Nothing here is trusted. Whatever x and η come out, `certify.curvature_dual` bounds the dual value
  from below at *this* x.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Margin = Callable[[Tensor], tuple[Tensor, Tensor]]
CAP = 1 - 1e-3
"""η stays below this share of its limit 1/C: at the limit the problem is not strictly convex, and
the bound at an inexact minimiser is void."""
LONGEST = 4.0
"""Of a step, in units of the residual."""


def best_multiplier(
    value: Tensor, slope: Tensor, away: Tensor, concave: Tensor
) -> tuple[Tensor, Tensor]:
    """The η for which a point proves most, and the dual value that it proves.

    d(η) = ½‖a‖² + ηf − ‖a + ηg‖² / (2(1 − ηC)) bounds the dual from below for every 0 ≤ η < 1/C
    (`certify.curvature_dual`). In u = 1 − ηC it is a constant less ‖g + Ca‖²/(2C²u) and
    u(‖g‖² + 2Cf)/(2C²), so it is concave, and greatest at u = P/Q, P = ‖g + Ca‖ and
    Q² = ‖g‖² + 2Cf; that is, without cancellation, at η = (2(f − a·g) − C‖a‖²) / (Q(Q + P)).

    Args:
        value: [n], f(x).
        slope: [n, D], g = ∇f(x).
        away: [n, D], a = x − x0.
        concave: [n], C.

    Returns:
        η [n], 0 ≤ η ≤ CAP/C, and d(η) [n], not rounded to any side.
    """
    tiny = torch.finfo(away.dtype).tiny
    size = (away * away).sum(1)
    ahead = 2 * (value - (away * slope).sum(1)) - concave * size
    q = ((slope * slope).sum(1) + 2 * concave * value).clamp(min=0).sqrt()
    p = torch.linalg.vector_norm(slope + concave[:, None] * away, dim=1)
    cap = CAP / concave.clamp(min=tiny)
    eta = torch.minimum((ahead / (q * (q + p)).clamp(min=tiny)).clamp(min=0), cap)
    residual = away + eta[:, None] * slope
    loss = (residual * residual).sum(1) / (2 * (1 - eta * concave))
    return eta, size / 2 + eta * value - loss


def nearest_point(
    margin: Margin, x0: Tensor, concave: Tensor, convex: Tensor, steps: int = 15
) -> tuple[Tensor, Tensor, Tensor]:
    """The certificate problem by projection: x → x0 − η·∇f(x), η of the linearised f = 0, capped.

    Where f is positive at the cap the fixed point is the minimiser for η = cap: the best that
    duality gives. The first step is a whole one; the length of another is that with which the last
    would have ended nearest to the fixed point (Barzilai and Borwein's), and not below 1/(1 + ηM),
    with which the paper's iteration never fails.

    Args:
        margin: f with its gradient.
        x0: [n, D], f(x0) > 0.
        concave: [n], C = −m > 0.
        convex: [n], M > 0.
        steps: gradients.

    Returns:
        Of the points seen the one that proves most: x [n, D], its best η [n], 0 ≤ η < 1/C, and the
        dual value [n] that they prove, all but for rounding.
    """
    tiny = torch.finfo(x0.dtype).tiny
    cap = CAP / concave.clamp(min=tiny)
    x = found = last = x0
    multiplier, dual = torch.zeros_like(cap), torch.zeros_like(cap)
    before = torch.zeros_like(x0)
    for _ in range(steps):
        value, slope = margin(x)
        away = x - x0
        eta, proved = best_multiplier(value, slope, away, concave)
        better = proved > dual
        found = torch.where(better[:, None], x, found)
        multiplier = torch.where(better, eta, multiplier)
        dual = torch.where(better, proved, dual)
        distance, square = value - (away * slope).sum(1), (slope * slope).sum(1)
        eta = torch.minimum((distance / square.clamp(min=tiny)).clamp(min=0), cap)
        residual = away + eta[:, None] * slope
        moved, gained = x - last, residual - before  # at first nothing has moved: a whole step
        fitting = (moved * gained).sum(1) / (gained * gained).sum(1).clamp(min=tiny)
        step = torch.where(fitting > 0, fitting, 1.0).clamp(max=LONGEST)
        step = torch.maximum(step, 1 / (1 + eta * convex))
        last, before = x, residual
        x = x - step[:, None] * residual
    return found, multiplier, dual


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
