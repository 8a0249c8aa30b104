"""CRC with curvature bounded in a ball only (Singla & Feizi 2020, C.6), for two-layer networks.

Let ∇²f ⪰ −C·I in the ball B of radius R about x̂, x̃ in B, η < 1/C, and d the dual bound of
`curvature_dual` with this C. Then f > 0 at every x with ‖x − x̂‖ < min(R, √(2d)).

Proof: φ = ½‖x − x̂‖² + ηf is (1 − ηC)-strongly convex on B, so φ ≥ d on B; a point of B with f ≤ 0
has ½‖x − x̂‖² ≥ φ(x) ≥ d. ∎  Nothing is said of points outside B, so R caps the radius.

Notable:
- In B every z_n = W_n x + b_n lies in an interval of half-width R‖W_n‖, and σ'' there between
  bounds that are closer than its global ones. C(R) = ‖diag(s)W‖² as in Theorem 3, and grows with R.
- The best R is where √(2d) = R: it is bisected, with estimates in float32; what comes out is proved
  once, by Cholesky.
- The paper takes for B the ball of the certificate that it has, solves, and goes on with the larger
  radius that comes out. That radius leaves B, where this C holds: see `printed_radii`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.certify.curvature_certifier import MANY, CurvatureCertifier
from pipeline.certify.curvature_dual import dual_radius
from pipeline.certify.radius import Floats
from pipeline.certify.rounding import norm_upper
from pipeline.certify.stages import dense_stages_of
from pipeline.certify.verdicts import Integers
from pipeline.layers.elementary import activate, differentiate
from pipeline.lipschitz.curvature_bound import scaled_norm_bound
from pipeline.lipschitz.curvature_search import best_multiplier, nearest_point
from pipeline.lipschitz.rounding import UNIT, gamma, up

ROUNDS = 10
POWER_STEPS = 30
ROOM = 1.01
"""The search takes for C this much more than power iteration finds."""
BEND_ERROR = 2.0**-40
"""More than the computed σ'' can be off: σ and σ' are off by 256u each."""
STEEPEST = {"sigmoid": math.log(2 + math.sqrt(3)), "tanh": math.log(2 + math.sqrt(3)) / 2}
"""|z| where σ'' is extreme. A bit of error here is of second order in σ''."""


def bend_range(function: str, least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of σ'' on [least, most], elementwise, rounded outwards.

    Args:
        function: softplus, sigmoid or tanh.
        least: float64.
        most: not below `least`.
    """
    ends = _bend(function, least), _bend(function, most)
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    if function == "softplus":
        high = torch.where((least <= 0) & (most >= 0), 0.25, high)
    else:
        at = STEEPEST[function]
        extreme = float(_bend(function, torch.tensor(-at, dtype=torch.float64)))
        high = torch.where((least <= -at) & (most >= -at), extreme, high)
        low = torch.where((least <= at) & (most >= at), -extreme, low)
    return low - BEND_ERROR, high + BEND_ERROR


def _bend(function: str, z: Tensor) -> Tensor:
    if function == "softplus":
        return differentiate("sigmoid", z)
    if function == "sigmoid":
        return differentiate("sigmoid", z) * (1 - 2 * activate("sigmoid", z))
    return -2 * activate("tanh", z) * differentiate("tanh", z)


class LocalCurvature:
    """Radii of one network by curvature in balls.

    Args:
        certifier: of a network with one hidden layer.

    Raises:
        ValueError: more hidden layers, for which the paper has no local bound either.
    """

    def __init__(self, certifier: CurvatureCertifier) -> None:
        stages = dense_stages_of(certifier.network)
        if len(stages.maps) != 1:
            raise ValueError(
                f"the network has {len(stages.maps)} hidden layers, and curvature is bounded in "
                "balls for one only: take a model.hidden of one width"
            )
        self.certifier = certifier
        layer = certifier.network.layers[stages.numbers[0]]
        self._function = certifier.network.layers[stages.numbers[0] + 1].attributes()["function"]
        self._weight = torch.from_numpy(stages.maps[0].weight)
        self._bias = torch.from_numpy(layer.tensors()[f"{layer.name}.bias"]).double()
        self._lengths = torch.from_numpy(norm_upper(self._weight))
        self._rows = torch.from_numpy(stages.rows)
        self._single = self._weight.float()

    def radii(
        self, center: Tensor, first: Integers, second: Integers, known: Floats
    ) -> tuple[Floats, Floats]:
        """Proved radii about float centres, and the curvature bounds that they rest on.

        Args:
            center: [n, D] float64.
            first: [n] classes.
            second: [n] classes.
            known: [n], proved radii by global curvature; never undercut.
        """
        low, high = known.copy(), 4 * known + 1e-3
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            good = self._searched(center, first, second, middle)[1] >= middle
            low, high = np.where(good, middle, low), np.where(good, high, middle)
        x, _ = self._searched(center, first, second, low)
        one, other = torch.from_numpy(first), torch.from_numpy(second)
        squares = self._squares(center, low, first, second)
        weight = self._weight.numpy()
        concave = np.array([scaled_norm_bound(weight, row) for row in squares.numpy()])
        away = x.double() - center
        inside = torch.from_numpy(low * (1 - 1e-9) / np.maximum(norm_upper(away), 1e-300))
        point = center + away * inside.clamp(max=1)[:, None]
        within = norm_upper(point - center) * (1 + 4 * UNIT) + UNIT * norm_upper(point) <= low
        margins = self.certifier.exact.evaluate(point, one, other)
        proved = np.minimum(dual_radius(margins, point, center, concave), low)
        return np.maximum(np.where(within, proved, 0.0), known), concave

    def printed_radii(
        self, center: Tensor, first: Integers, second: Integers, known: Floats, rounds: int = 5
    ) -> Floats:
        """The iteration of C.6 as printed, by estimates: its radii leave their balls, no bounds.

        But for how points are kept in a ball: by what they are cut to, not by halving of steps.
        """
        radius = known
        for _ in range(rounds):
            radius = np.maximum(radius, self._searched(center, first, second, radius)[1])
        return radius

    def _searched(
        self, center: Tensor, first: Integers, second: Integers, radius: Floats
    ) -> tuple[Tensor, Floats]:
        """A point within balls of these radii and its √(2d), in float32."""
        squares = self._squares(center, radius, first, second).float()
        v = torch.ones(len(center), self._single.shape[1]) / self._single.shape[1] ** 0.5
        size = torch.zeros(len(center))
        for _ in range(POWER_STEPS):
            v = (squares * (v @ self._single.T)) @ self._single
            size = torch.linalg.vector_norm(v, dim=1)
            v = v / size.clamp(min=1e-30)[:, None]
        concave = (ROOM * size).clamp(min=1e-6)
        convex = torch.from_numpy(self.certifier.curvature[second, first]).float()
        margin = self.certifier.fast.margin(torch.from_numpy(first), torch.from_numpy(second))
        start = center.float()
        x, _, _ = nearest_point(margin, start, concave, convex, MANY)
        away = x - start  # outside the ball `concave` bounds nothing
        length = torch.linalg.vector_norm(away, dim=1)
        share = (torch.from_numpy(radius).float() / length.clamp(min=1e-30)).clamp(max=1)
        away = share[:, None] * away
        value, slope = margin(start + away)
        _, dual = best_multiplier(value, slope, away, concave)
        return start + away, (2 * dual.clamp(min=0)).sqrt().double().numpy()

    def _squares(self, center: Tensor, radius: Floats, first: Integers, second: Integers) -> Tensor:
        """s² [n, hidden], rounded up: ∇²f ⪰ −Wᵀ diag(s²) W in the balls."""
        z = center @ self._weight.T + self._bias
        error = gamma(center.shape[1] + 1) * (
            self._lengths * torch.from_numpy(norm_upper(center))[:, None] + self._bias.abs()
        )
        spread = (torch.from_numpy(radius)[:, None] * self._lengths + error) * (1 + 1e-12)
        low, high = bend_range(self._function, z - spread, z + spread)
        difference = self._rows[first] - self._rows[second]
        concave = torch.where(difference > 0, -low * difference, -high * difference)
        return concave.clamp(min=0) * up(1 + 2.0**-50)
