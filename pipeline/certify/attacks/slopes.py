"""Lower bounds of Lipschitz constants: two points whose images are as far apart as can be found.

A certified constant below such a quotient is refuted. Notable: the quotients are float64, of points
that are not close, and less `ROUNDING`, more than their own: a layer can be exactly as steep as its
constant.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.certify.attacks.ball import TINY, norms, unit
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.network import ExportedNetwork

ROUNDING = 1e-9
"""Relative; 1e-13 for maps of a thousand terms, and as much again for distances of 1e-3."""
DISTANCE = 1.0
"""Between the two points of a layer's search."""


def steepest(
    function: Callable[[Tensor], Tensor], first: Tensor, second: Tensor, steps: int
) -> float:
    """The largest ‖f(x) − f(x')‖/‖x − x'‖ met while x' follows the gradient of it, x fixed.

    The step goes to where the gradient points, at the same distance: for a linear map that is
    power iteration, and no step makes the quotient smaller.

    Args:
        function: [B, ...] -> [B, ...], float64.
        first: [B, ...], the fixed points.
        second: [B, ...], others to begin with.
        steps: gradients.
    """
    with torch.no_grad():
        anchor = function(first)
    length, largest = norms(second - first), 0.0
    move = second - first
    for _ in range(steps):
        move = move.detach().requires_grad_()
        apart = norms(function(first + move) - anchor)
        largest = max(largest, float((apart / length).detach().max()))
        (slope,) = torch.autograd.grad(apart.sum(), move)
        # A slope that is nearly zero has no direction; where it led the points would be too close.
        move = torch.where(norms(slope) > TINY, unit(slope), unit(move.detach())) * length
    with torch.no_grad():
        apart = norms(function(first + move) - anchor)
    return max(largest, float((apart / norms(move)).max())) * (1 - ROUNDING)


def layer_slope(layer: ExportedLayer, steps: int, starts: int, seed: int) -> float:
    """A lower bound of the constant of one layer."""
    generator = torch.Generator().manual_seed(seed)
    shape = (starts, *layer.input_shape)
    first = torch.randn(shape, generator=generator, dtype=torch.float64)
    direction = torch.randn(shape, generator=generator, dtype=torch.float64)
    return steepest(layer.forward, first, first + DISTANCE * unit(direction), steps)


def trunk_slope(
    network: ExportedNetwork, images: Tensor, distances: tuple[float, ...], steps: int, seed: int
) -> float:
    """A lower bound of the constant of the network up to its head.

    Args:
        network: the exported network.
        images: [B, C, H, W] float64, where to look.
        distances: of the two points.
        steps: gradients at each distance.
        seed: of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    largest = 0.0
    for distance in distances:
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        start = images + distance * unit(direction)
        largest = max(largest, steepest(network.trunk, images, start, steps))
    return largest
