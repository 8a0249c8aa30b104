"""The quadratic certificate of two-layer ReLU networks (Singla & Feizi 2020, Appendix G).

In the ball ‖x − x̂‖ ≤ ρ every z_n = W_n x + b_n lies in [d_n, u_n], and relu between two parabolas
there. With the lower one where w_n > 0 and the upper one elsewhere, a margin
f = Σ w_n relu(z_n) + c has a quadratic minorant G in the ball, convex or not:

    f(x̂ + y) ≥ G(y) = Σ a2_n (W_n y)² + a1_n (W_n y) + a0,   ∇²G = 2 Wᵀdiag(a2)W ⪰ −C·I.

The nearest zero of G is CRC's dual problem with G for f (for one quadratic constraint the dual is
tight: the S-procedure), so `dual_radius` bounds it at any point, and min(ρ, √(2d)) is certified.

Notable:
- The parabolas' coefficients are rounded; S, taken from a0, is more than what that, the rounding of
  z(x̂) and that of w_j − w_i can change (`_minorant`). C is proved by Cholesky.
- Appendix G swaps two of its cases: of the three minorants of relu it takes 0 where z is the better
  one, and z where 0 is; and it moves the wrong end of its bisection of ρ. All three are valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.certify.curvature_dual import Margins, dual_radius
from pipeline.certify.radius import Floats
from pipeline.certify.rounding import input_error, norm_upper
from pipeline.certify.stages import dense_stages_of
from pipeline.certify.verdicts import Integers
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.curvature_search import nearest_point
from pipeline.lipschitz.estimate import largest_ritz_values, start_vectors
from pipeline.lipschitz.rounding import UNDERFLOW, UNIT, frobenius_upper, gamma, mul_up
from pipeline.lipschitz.spectral import GramForm, cholesky_upper

LARGEST = 5.0
"""ρ is bisected from here (Appendix G)."""
BISECTIONS, STEPS, LANCZOS_STEPS = 12, 30, 40
WIDER = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SLACK = 1 + 1e-9


@dataclass(frozen=True)
class Minorant:
    """G for each of n balls."""

    square: Tensor
    """a2 [n, h]."""
    linear: Tensor
    """a1 [n, h]."""
    constant: Tensor
    """a0 [n]."""


class ReluQuadratic:
    """Certifies margins of a network with one hidden layer of ReLUs.

    Args:
        network: flattening, one dense layer with ReLU, a head.

    Raises:
        ValueError: another network.
    """

    def __init__(self, network: ExportedNetwork) -> None:
        stages = dense_stages_of(network)
        number = stages.numbers[0]
        functions = [
            layer.attributes().get("function")
            for layer in network.layers
            if layer.kind == "activation"
        ]
        if functions != ["relu"]:
            raise ValueError(
                "the quadratic certificate is for one hidden dense layer with relu: take mlp with "
                "model.hidden of one width, model.activation relu and model.curvature false"
            )
        layer = network.layers[number]
        self._weight = torch.from_numpy(stages.maps[0].weight)
        self._bias = torch.from_numpy(layer.tensors()[f"{layer.name}.bias"]).double()
        self._lengths = torch.from_numpy(norm_upper(self._weight))
        self._frobenius = frobenius_upper(self._weight.numpy())
        self._rows = torch.from_numpy(stages.rows)
        self._offsets = torch.from_numpy(network.head.bias).double()

    def radii(self, center: Tensor, first: Integers, second: Integers) -> Floats:
        """Proved radii, about v/255, inside which f_first > f_second: [n].

        Args:
            center: [n, D] float64, fl(v/255).
            first: [n] classes.
            second: [n] classes.
        """
        low, high = np.zeros(len(center)), np.full(len(center), LARGEST)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            good = self._searched(center, first, second, middle)[1] >= middle
            low, high = np.where(good, middle, low), np.where(good, high, middle)
        # Where nothing was good the minorant of a tiny ball is searched, and proves what it can.
        low = np.maximum(low * (1 - 1e-4), 1e-6)
        y, _ = self._searched(center, first, second, low)
        minorant = self._minorant(center, first, second, low)
        concave = np.array([self._proved_concavity(row) for row in minorant.square.numpy()])
        proved = dual_radius(self._evaluate(minorant, y), y, torch.zeros_like(y), concave)
        least = np.minimum(proved, low) - input_error(norm_upper(center))
        return np.where(least > 0, least, 0.0)

    def _minorant(
        self, center: Tensor, first: Integers, second: Integers, radius: Floats
    ) -> Minorant:
        """G in the balls of these radii, rounded downwards through its constant."""
        z = center @ self._weight.T + self._bias
        error = gamma(center.shape[1] + 1) * (
            self._lengths * torch.from_numpy(norm_upper(center))[:, None] + self._bias.abs()
        )
        spread = (torch.from_numpy(radius)[:, None] * self._lengths + error) * SLACK
        least, most = z - spread, z + spread
        rows = self._rows[first] - self._rows[second]
        offset = self._offsets[first] - self._offsets[second]
        a, b, c = parabolas(least, most, rows > 0)
        reach = least.abs() + most.abs()
        size = rows.abs()
        terms = gamma(rows.shape[1] + 300)
        lost = terms * (a.abs() * reach**2 + b.abs() * reach + c.abs() + reach)
        lost = size * (lost + error * (2 * a.abs() * reach + b.abs()))
        constant = (rows * (a * z * z + b * z + c)).sum(1) + offset
        lost_in_all = (lost.sum(1) + 4 * UNIT * offset.abs()) * SLACK + rows.shape[1] * UNDERFLOW
        return Minorant(rows * a, rows * (2 * a * z + b), constant - lost_in_all)

    def _searched(
        self, center: Tensor, first: Integers, second: Integers, radius: Floats
    ) -> tuple[Tensor, Floats]:
        """A point y and √(2d): estimates."""
        minorant = self._minorant(center, first, second, radius)
        concave = torch.from_numpy(self._concavity(minorant.square)).clamp(min=1e-6) * 1.001
        convex = 2 * minorant.square.clamp(min=0).amax(1) * self._frobenius**2

        def margin(y: Tensor) -> tuple[Tensor, Tensor]:
            t = y @ self._weight.T
            bent = minorant.square * t
            value = ((bent + minorant.linear) * t).sum(1) + minorant.constant
            return value, (2 * bent + minorant.linear) @ self._weight

        y, _, dual = nearest_point(margin, torch.zeros_like(center), concave, convex, STEPS)
        dual = torch.where(minorant.constant > 0, dual, 0.0)
        return y, (2 * dual).sqrt().numpy()

    def _concavity(self, square: Tensor) -> Floats:
        """λ_max(−∇²G) by Lanczos, from below: [n]."""
        weight, squares = self._weight.numpy(), square.numpy()

        def apply(v: Floats) -> Floats:
            return np.asarray(-2 * (squares * (v @ weight.T)) @ weight)

        start = start_vectors(len(squares), weight.shape[1], np.float64)
        return largest_ritz_values(apply, start, LANCZOS_STEPS)

    def _proved_concavity(self, square: Floats) -> float:
        """C with ∇²G ⪰ −C·I: not below λ_max(−2Wᵀdiag(a2)W)."""
        weight = self._weight.numpy()
        product = -2 * (weight.T @ (square[:, None] * weight))
        product = (product + product.T) / 2
        largest = float(np.abs(square).max())
        terms = gamma(len(weight) + 6)
        error = mul_up(4 * terms, largest, self._frobenius, self._frobenius) + UNDERFLOW
        form = GramForm(product[None, None], np.array([error]))
        estimate = max(float(self._concavity(torch.from_numpy(square)[None])[0]), 0.0)
        scale = max(estimate, 1e-9 * mul_up(2 * largest, self._frobenius, self._frobenius), 1e-12)
        for margin in WIDER:
            root = float(cholesky_upper(form, estimate + margin * scale)[0])
            if root < np.inf:
                return mul_up(root, root)
        return mul_up(2 * largest, self._frobenius, self._frobenius)

    def _evaluate(self, minorant: Minorant, y: Tensor) -> Margins:
        """G and ∇G at y, and what both may be off by."""
        t = y @ self._weight.T
        terms, width = gamma(y.shape[1] + 1), t.shape[1]
        error = terms * self._lengths * torch.from_numpy(norm_upper(y))[:, None]
        error = error + y.shape[1] * UNDERFLOW
        a, b = minorant.square.abs(), minorant.linear.abs()
        value = ((minorant.square * t + minorant.linear) * t).sum(1) + minorant.constant
        value_error = ((2 * a * t.abs() + b + a * error) * error).sum(1)
        sizes = (a * t * t + b * t.abs()).sum(1) + minorant.constant.abs()
        value_error = (value_error + gamma(width + 6) * sizes) * SLACK
        inner = 2 * minorant.square * t + minorant.linear
        off = norm_upper(2 * a * error + 4 * UNIT * (2 * a * t.abs() + b))
        gradient_error = self._frobenius * (off + gamma(width + 1) * norm_upper(inner)) * SLACK
        return Margins(value.numpy(), value_error.numpy(), inner @ self._weight, gradient_error)


def parabolas(least: Tensor, most: Tensor, below: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """α, β, γ with αz² + βz + γ ≤ relu(z) on [d, u] where `below`, else ≥: each of their shape.

    Args:
        least: d.
        most: u, not below d.
        below: whether the minorant is wanted.
    """
    nothing, one = torch.zeros_like(least), torch.ones_like(least)
    width = (most - least).clamp(min=1e-300)
    square = width * width
    zero = (nothing, nothing, nothing)
    straight = (nothing, one, nothing)
    through = (1 / width, -least / width, nothing)  # z(z − d)/(u − d)
    steep = (-least / square, (most**2 + least**2) / square, -(most**2) * least / square)
    flat = (most / square, -2 * most * least / square, most * least**2 / square)
    cases = [
        (least >= 0, straight),
        (most <= 0, zero),
        (below & (most >= -2 * least), straight),
        (below & (-least >= 2 * most), zero),
        (below, through),
        (most >= -least, steep),
    ]
    found = flat
    for chosen, values in reversed(cases):
        first, second, third = (
            torch.where(chosen, new, old) for new, old in zip(values, found, strict=True)
        )
        found = first, second, third
    return found
