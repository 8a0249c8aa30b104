"""CROWN's l2 certificate for fully connected networks (Zhang et al. 2018, CROWN-general).

In the ball ‖x − x0‖ ≤ ρ every pre-activation lies in an interval [l, u]; there σ lies between two
lines; and lines compose. So a margin is bounded from below by a linear function of x, whose least
value in the ball is its value at x0 − ρ·(its slope's norm). A radius is certified where that is
positive; the largest such ρ is found by bisection, one for each image, all images at once.

Notable:
- For z that S-shaped functions bend both ways in [l, u], the line above goes through (l, σ(l)) and
  touches σ on the right (bisected from the side on which it is valid); below, mirrored.
- Of inputs wider than the first layer only the directions that it sees are kept (`seen`).
- A baseline for CRC's tables: float64 without counting its rounding, so no certificate of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.lipschitz.plain import SLOPE, VALUE, PlainNetwork

BISECTIONS = 15
TANGENTS = 40
"""Bisections for a tangent point."""


@dataclass(frozen=True)
class Lines:
    """Slope and intercept of the lines below and above σ, each of the shape of l."""

    low_slope: Tensor
    low: Tensor
    high_slope: Tensor
    high: Tensor


def lines(function: str, least: Tensor, most: Tensor) -> Lines:
    """Two lines that hold σ between them on [least, most], elementwise."""
    value, slope_of = VALUE[function], SLOPE[function]
    width = most - least
    ends = value(least), value(most)
    flat = width <= 1e-12
    chord = torch.where(flat, slope_of(least), (ends[1] - ends[0]) / width.clamp(min=1e-12))
    middle = (least + most) / 2
    if function == "relu":
        # above: the chord; below: the line of slope 0 or 1, whichever leaves less area
        low_slope = torch.where(least >= 0, 1.0, torch.where(most <= 0, 0.0, most > -least))
        low_slope = low_slope.to(least)
        return Lines(low_slope, torch.zeros_like(least), chord, ends[0] - chord * least)
    if function == "softplus":  # convex
        touch = slope_of(middle)
        return Lines(touch, value(middle) - touch * middle, chord, ends[0] - chord * least)
    # convex on the left of 0, concave on the right
    right, left = least >= 0, most <= 0
    touch = slope_of(middle)
    touched = value(middle) - touch * middle
    chorded = ends[0] - chord * least
    above = _tangent(function, least, most)  # through (l, σ(l)), touching on the right
    below = _tangent(function, -most, -least)  # the same mirrored: σ(−z) = 2σ(0) − σ(z)
    twice = 2 * value(torch.zeros_like(least))
    high_slope = torch.where(right, touch, torch.where(left, chord, above[0]))
    high = torch.where(right, touched, torch.where(left, chorded, above[1]))
    low_slope = torch.where(right, chord, torch.where(left, touch, below[0]))
    low = torch.where(right, chorded, torch.where(left, touched, twice - below[1]))
    return Lines(low_slope, low, high_slope, high)


def _tangent(function: str, least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and intercept of a line above σ on [least, most], least < 0 < most.

    Tangent at the least d ≥ 0 where its value at `least` is not below σ(least), approached from the
    valid side; the chord where no d up to `most` is.
    """
    value, slope_of = VALUE[function], SLOPE[function]
    start = value(least)
    near, far = torch.zeros_like(most), most.clamp(min=0)

    def enough(at: Tensor) -> Tensor:
        return value(at) + slope_of(at) * (least - at) >= start

    chord = (value(most) - start) / (most - least).clamp(min=1e-12)
    reached = enough(far)
    for _ in range(TANGENTS):
        middle = (near + far) / 2
        good = enough(middle)
        near, far = torch.where(good, near, middle), torch.where(good, middle, far)
    slope = torch.where(reached, slope_of(far), chord)
    at = torch.where(reached, value(far) - slope * far, start - slope * least)
    return slope, at


def seen(network: PlainNetwork, x0: Tensor) -> tuple[PlainNetwork, Tensor]:
    """The network and points [n, D] in coordinates of W^(1)'s row space, where that is smaller.

    Orthonormal, so balls are projected on balls of the same radius: every bound is the same, and a
    CIFAR network of 1024 units costs a third.
    """
    weight = network.weights[0]
    if weight.shape[1] <= weight.shape[0]:
        return network, x0
    basis, triangle = torch.linalg.qr(weight.T)
    return replace(network, weights=[triangle.T, *network.weights[1:]]), x0 @ basis


def margin_lower(
    network: PlainNetwork, x0: Tensor, radius: Tensor, first: Tensor, second: Tensor
) -> Tensor:
    """Lower bounds of f_first − f_second in the balls: [n].

    Args:
        network: any activations that `lines` knows.
        x0: [n, D] centres.
        radius: [n].
        first: [n] classes.
        second: [n] classes.
    """
    found: list[Lines] = []
    weight, bias = network.weights[0], network.biases[0]
    center = x0 @ weight.T + bias
    spread = radius[:, None] * torch.linalg.vector_norm(weight, dim=1)
    found.append(lines(network.functions[0], center - spread, center + spread))
    for number in range(1, len(network.weights)):
        rows = network.weights[number].expand(len(x0), -1, -1)
        offset = network.biases[number]
        least = _backwards(network, found, rows, x0, radius) + offset
        most = -_backwards(network, found, -rows, x0, radius) + offset
        found.append(lines(network.functions[number], least, torch.maximum(least, most)))
    rows = (network.rows[first] - network.rows[second])[:, None]
    offset = network.offsets[first] - network.offsets[second]
    return _backwards(network, found, rows, x0, radius)[:, 0] + offset


def _backwards(
    network: PlainNetwork, found: list[Lines], rows: Tensor, x0: Tensor, radius: Tensor
) -> Tensor:
    """Lower bounds of rows [n, m, d] times the last activation that has lines: [n, m]."""
    constant = rows.new_zeros(rows.shape[:2])
    for number in reversed(range(len(found))):
        each = found[number]
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        constant = constant + (positive @ each.low[..., None])[..., 0]
        constant = constant + (negative @ each.high[..., None])[..., 0]
        rows = positive * each.low_slope[:, None] + negative * each.high_slope[:, None]
        constant = constant + rows @ network.biases[number]
        rows = rows @ network.weights[number]
    at_center = (rows @ x0[..., None])[..., 0]
    return constant + at_center - radius[:, None] * torch.linalg.vector_norm(rows, dim=2)


def crown_radius(
    network: PlainNetwork, x0: Tensor, first: Tensor, second: Tensor, largest: float = 8.0
) -> Tensor:
    """The largest radii, up to `largest`, at which CROWN proves f_first > f_second: [n].

    Args:
        network: in float64.
        x0: [n, D] centres; 0 comes out where f_first ≤ f_second there.
        first: [n] classes.
        second: [n] classes.
        largest: where the bisection starts.
    """
    low, high = torch.zeros_like(x0[:, 0]), torch.full_like(x0[:, 0], largest)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        good = margin_lower(network, x0, middle, first, second) > 0
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return low
