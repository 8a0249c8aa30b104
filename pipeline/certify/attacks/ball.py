"""Points of l2 balls around images: [B, C, H, W] tensors, a radius [B] for each image."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-30


def norms(x: Tensor) -> Tensor:
    """[B, ...] -> l2 norms [B, 1, 1, ...], to divide by."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).view(-1, *[1] * (x.ndim - 1))


def unit(x: Tensor) -> Tensor:
    """Rows of norm 1; rows of zeros stay."""
    return x / norms(x).clamp(min=TINY)


def as_radii(radius: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1] of the dtype and device of `like`."""
    return radius.to(like).view(-1, *[1] * (like.ndim - 1))


def into_ball(x: Tensor, center: Tensor, radius: Tensor, boxed: bool) -> Tensor:
    """The points of the balls (and of [0, 1]) that x is brought back to.

    Scaled towards the centre, and if `boxed` clipped: the centre lies in the box, so clipping only
    shortens.
    """
    move = x - center
    move = move * (as_radii(radius, x) / norms(move).clamp(min=TINY)).clamp(max=1)
    return (center + move).clamp(0, 1) if boxed else center + move


def random_start(center: Tensor, radius: Tensor, boxed: bool, generator: torch.Generator) -> Tensor:
    """Points at uniform distances in random directions."""
    direction = torch.randn(center.shape, generator=generator).to(center)
    share = torch.rand(len(center), generator=generator).to(center)
    start = center + as_radii(radius * share.to(radius), center) * unit(direction)
    return into_ball(start, center, radius, boxed)
