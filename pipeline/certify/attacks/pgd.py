"""Projected gradient descent in l2 (Madry et al. 2018), with restarts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.certify.attacks.ball import as_radii, into_ball, random_start, unit
from pipeline.certify.attacks.losses import Loss, margins

Logits = Callable[[Tensor], Tensor]
"""[B, C, H, W] -> [B, K], differentiable."""
RELATIVE_STEP = 2.5
"""Steps of 2.5·ε/steps: the usual choice, enough to cross the ball."""


class Best:
    """The point with the least margin of each image that any attack has met.

    Args:
        center: [B, C, H, W], where the search starts.
        labels: [B].
    """

    def __init__(self, center: Tensor, labels: Tensor) -> None:
        self.points = center.clone()
        self.labels = labels
        self.margin = torch.full((len(center),), torch.inf).to(center)

    def see(self, points: Tensor, logits: Tensor) -> None:
        """Remember what is better."""
        margin = margins(logits, self.labels).detach()
        better = margin < self.margin
        self.margin = torch.where(better, margin, self.margin)
        chosen = better.view(-1, *[1] * (points.ndim - 1))
        self.points = torch.where(chosen, points.detach(), self.points)


def pgd(
    logits: Logits,
    center: Tensor,
    labels: Tensor,
    radius: Tensor,
    loss: Loss,
    *,
    steps: int,
    restarts: int,
    boxed: bool,
    generator: torch.Generator,
) -> Tensor:
    """The points [B, C, H, W] of least margin that were found in the balls.

    Args:
        logits: the network.
        center: [B, C, H, W].
        labels: [B].
        radius: [B].
        loss: to go up.
        steps: of each restart.
        restarts: random starts; the first starts at the centre.
        boxed: whether points must lie in [0, 1].
        generator: of the starts.
    """
    best = Best(center, labels)
    length = as_radii(radius, center) * (RELATIVE_STEP / steps)
    for restart in range(restarts):
        x = center.clone() if restart == 0 else random_start(center, radius, boxed, generator)
        for _ in range(steps):
            slope, found = gradient(logits, x, loss)
            best.see(x, found)
            x = into_ball(x + length * unit(slope), center, radius, boxed)
        with torch.no_grad():
            best.see(x, logits(x))
    return best.points


def gradient(logits: Logits, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Gradient of the loss at x, and the logits there."""
    x = x.detach().requires_grad_()
    found = logits(x)
    (slope,) = torch.autograd.grad(loss(found).sum(), x)
    return slope, found.detach()
