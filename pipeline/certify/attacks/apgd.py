"""Auto-PGD in l2, with cross-entropy and with targets (Croce and Hein, ICML 2020, Algorithm 1).

Written from the paper, since the authors' package cannot be a dependency. The step starts at 2ε and
is halved, going back to the best point, where at a checkpoint fewer than 75 % of the steps went up
or neither step nor best value has moved since the last one; steps carry a momentum of 1/4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.certify.attacks.ball import as_radii, into_ball, random_start, unit
from pipeline.certify.attacks.losses import Loss, targeted_dlr
from pipeline.certify.attacks.pgd import Best, Logits, gradient

RISING = 0.75
"""ρ: the share of steps that must go up."""
MOMENTUM = 0.75
"""α: the share of the new step."""
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06
"""Checkpoints: the first after 22 % of the steps, the next ones 3 % sooner each, at least 6 %."""
TARGETS = 9


def checkpoints(steps: int) -> list[int]:
    """The iterations after which the step may be halved (equation 3 of the paper)."""
    period, last, found = FIRST, 0.0, []
    while last + period <= 1:
        last += period
        found.append(max(1, round(last * steps)))
        period = max(period - SHORTER, SHORTEST)
    return sorted(set(found))


def apgd(
    logits: Logits,
    center: Tensor,
    labels: Tensor,
    radius: Tensor,
    loss: Loss,
    *,
    steps: int,
    boxed: bool,
    generator: torch.Generator,
    best: Best | None = None,
) -> Tensor:
    """The points [B, C, H, W] of least margin that were found in the balls; arguments as `pgd`.

    Args:
        best: what earlier searches found, and what this one adds to.
    """
    best = best or Best(center, labels)
    step = 2 * as_radii(radius, center)
    x = random_start(center, radius, boxed, generator)
    slope, found = gradient(logits, x, loss)
    best.see(x, found)
    value = loss(found)
    top, top_x, top_slope = value.clone(), x.clone(), slope.clone()
    before = x.clone()
    rises = torch.zeros_like(value)
    halved, top_then = torch.ones_like(value, dtype=torch.bool), top.clone()
    marks, last = checkpoints(steps), 0
    for number in range(1, steps + 1):
        z = into_ball(x + step * unit(slope), center, radius, boxed)
        share = MOMENTUM if number > 1 else 1.0
        moved = x + share * (z - x) + (1 - share) * (x - before)
        before, x = x, into_ball(moved, center, radius, boxed)
        slope, found = gradient(logits, x, loss)
        best.see(x, found)
        new = loss(found)
        rises += new > value
        value = new
        better = value > top
        spread = better.view(-1, *[1] * (x.ndim - 1))
        top = torch.where(better, value, top)
        top_x, top_slope = torch.where(spread, x, top_x), torch.where(spread, slope, top_slope)
        if number in marks:
            stuck = (rises <= RISING * (number - last)) | (~halved & (top <= top_then))
            halved, top_then, last = stuck, top.clone(), number
            rises.zero_()
            spread = stuck.view(-1, *[1] * (x.ndim - 1))
            step = torch.where(spread, step / 2, step)
            x, slope = torch.where(spread, top_x, x), torch.where(spread, top_slope, slope)
            value = torch.where(stuck, top, value)
    return best.points


def apgd_targeted(
    logits: Logits,
    center: Tensor,
    labels: Tensor,
    radius: Tensor,
    *,
    steps: int,
    boxed: bool,
    generator: torch.Generator,
) -> Tensor:
    """APGD-T: the targeted loss towards each of the nine likeliest other classes."""
    best = Best(center, labels)
    with torch.no_grad():
        ranked = logits(center).scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    for place in range(min(TARGETS, ranked.shape[1] - 1)):
        loss = targeted_dlr(labels, ranked[:, place])
        apgd(
            logits, center, labels, radius, loss,
            steps=steps, boxed=boxed, generator=generator, best=best,
        )  # fmt: skip
    return best.points
