"""The curvature certifier (CRC; Singla & Feizi 2020): radii by duality, for all other classes.

Notable:
- An image's radius is the least over all classes but the predicted one. The paper takes the
  runner-up class alone, which is no certificate of the prediction; that reading is
  `CurvatureReference`, published beside it as `vra_unsound`.
- The search runs in float32 and is not trusted; every radius is a bound at the point that it found,
  with the multiplier that is best there, computed in float64 (`curvature_dual`). Few steps are
  spent on all classes, many on the one that binds, until it does.
- The same points prove statement F: the radius within which the float64 program is right as well.
- The published radii lie 1e-6 (relative) below the proved ones, so that the independent check,
  which searches for its own points, can prove them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.certify.curvature_dual import (
    MarginFunction,
    best_dual_value,
    exact_radius,
    program_radius,
)
from pipeline.certify.lipschitz_certifier import PIXELS, LipschitzCertifier
from pipeline.certify.radius import Floats
from pipeline.certify.rounding import input_error, norm_upper
from pipeline.certify.stages import Stages, dense_stages_of
from pipeline.certify.unsound import UnsoundReference
from pipeline.certify.verdicts import Integers, Verdicts
from pipeline.layers.activation import IN_TRAINING
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.curvature_bound import CurvatureBounds
from pipeline.lipschitz.curvature_search import Margin, nearest_point

FEW, MANY = 4, 16
"""Steps for every class, and for the class that binds."""
PUBLISHED = 1 - 1e-6
ROUNDINGS = 3
"""How often the rounding of a margin is charged: once for the proof, twice so that whoever checks,
with logits that are off to the other side, can prove the same radius."""


class CurvatureCertifier(LipschitzCertifier):
    """Certifies images of a smooth fully connected network by bounded curvature.

    Args:
        network: flattening, dense layers with smooth activations, a head.
        bounds: of its layers.
        claims: proved: ∇²(f_j − f_i) ⪰ −C_ji·I.
        device: where logits are computed; the dual problems are solved on the CPU.

    Attributes:
        curvature: [K, K], C_ji.
        exact: margins and gradients in float64, with what both may be off by.
        fast: the same in float32, for searches.
    """

    def __init__(
        self,
        network: ExportedNetwork,
        bounds: Sequence[NormBound],
        claims: CurvatureBounds,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(network, bounds, device)
        self.claims, self.curvature = claims, claims.table
        stages = dense_stages_of(network)
        self.exact = MarginFunction(network, stages, bounds)
        self.fast = FastMargins(network, stages)

    def margin_evidence(self) -> dict[str, Any]:
        """The claimed C_ji, and their terms; η and x̃ are found anew by whoever checks."""
        evidence: dict[str, Any] = {"method": "curvature", "curvature": self.curvature.tolist()}
        if self.claims.terms is not None:
            evidence["terms"] = self.claims.terms.tolist()
        return evidence

    @torch.no_grad()
    def _certify_slice(self, images: Tensor, labels: Tensor) -> Verdicts:
        numbers = labels.cpu().numpy().astype(np.int64)
        logits, norm, error, ball = self._forward(images)
        verdicts = self.decide(logits, norm, error, numbers, ball)
        center = PIXELS[images.cpu().to(torch.int64)].flatten(1)
        chosen = np.flatnonzero(verdicts.correct)
        radius, inner = np.zeros(len(numbers)), np.zeros(len(numbers))
        binding = verdicts.binding.copy()
        if len(chosen):
            fixed, growing = ball.delta(self._head_error, error, norm, verdicts.predict)
            radius[chosen], inner[chosen], binding[chosen] = self.radii(
                center[chosen], numbers[chosen], fixed[chosen], growing[chosen]
            )
            inner = np.maximum(np.minimum(inner, ball.reach(self._head_error, error, norm)), 0.0)
        rows = np.arange(len(numbers))
        margins = logits[rows, verdicts.predict][:, None] - logits
        delta = self._head_error.delta(error, norm, margins, verdicts.predict)
        finite = np.isfinite(logits).all(axis=1)
        return Verdicts(
            label=verdicts.label,
            predict=verdicts.predict,
            radius=radius,
            correct=verdicts.correct,
            binding=binding,
            margin=np.where(finite, margins[rows, binding], np.nan),
            lipschitz=self.margin_lipschitz[verdicts.predict, binding],
            delta=delta[rows, binding],
            radius_float=np.minimum(inner, radius),
        )

    def radii(
        self, center: Tensor, predict: Integers, fixed: Floats, growing: Floats
    ) -> tuple[Floats, Floats, Integers]:
        """Radii of statements R and F, and the class that binds R, at strictly classified points.

        Args:
            center: [n, D] float64, fl(v/255).
            predict: [n], the predicted classes.
            fixed: [n, K], rounding of the program's margins at the image, and
            growing: [n, K], what it gains for each unit of distance.
        """
        count, classes = len(center), self.network.head.num_classes
        found, inner = np.full((2, count, classes), np.inf)
        rows, others = np.nonzero(predict[:, None] != np.arange(classes))
        found[rows, others], inner[rows, others] = self._pairs(
            center, rows, predict[rows], others, fixed, growing, FEW
        )
        refined = np.zeros((count, classes), dtype=bool)
        while True:
            binding = found.argmin(axis=1)
            open_ = np.flatnonzero(~refined[np.arange(count), binding])
            if not len(open_):
                break
            pairs = open_, binding[open_]
            better = self._pairs(
                center, open_, predict[open_], binding[open_], fixed, growing, MANY
            )
            found[pairs] = np.maximum(found[pairs], better[0])
            inner[pairs] = np.maximum(inner[pairs], better[1])
            refined[pairs] = True
        error = input_error(norm_upper(center))
        least = (np.stack([found.min(axis=1), inner.min(axis=1)]) - error) * PUBLISHED
        least = np.where(least > 0, least, 0.0)
        return least[0], least[1], binding.astype(np.int64)

    def pair_radii(
        self, center: Tensor, rows: Integers, first: Integers, second: Integers, steps: int
    ) -> Floats:
        """A proved radius about the float centre for each (image, class, other class).

        Args:
            center: [n, D] float64.
            rows: [p], which centre.
            first: [p], the class that is ahead there.
            second: [p], the other.
            steps: gradients of the search.

        Returns:
            [p]; 0 where nothing is proved.
        """
        nothing = np.zeros((len(center), len(self.curvature)))
        return self._pairs(center, rows, first, second, nothing, nothing, steps)[0]

    def _pairs(
        self,
        center: Tensor,
        rows: Integers,
        first: Integers,
        second: Integers,
        fixed: Floats,
        growing: Floats,
        steps: int,
    ) -> tuple[Floats, Floats]:
        """Proved radii about the float centre, R's and F's, for images `rows` against `second`."""
        concave = self.curvature[first, second]
        one, other = torch.from_numpy(first), torch.from_numpy(second)
        start = center[rows]
        margin = self.fast.margin(one, other)
        bent = (concave, self.curvature[second, first])
        concave_side, convex_side = (torch.from_numpy(side).float() for side in bent)
        x, _, _ = nearest_point(margin, start.float(), concave_side, convex_side, steps)
        value, multiplier = self._dual(x.double(), start, one, other, concave)
        # A margin without a zero and all but without curvature sends the search out of range.
        lost = np.flatnonzero(~(value > 0))
        if len(lost):
            value[lost], multiplier[lost] = self._dual(
                start[lost], start[lost], one[lost], other[lost], concave[lost]
            )
        rounding = fixed[rows, second], growing[rows, second]
        return exact_radius(value), program_radius(value, multiplier, *rounding)

    def _dual(
        self, point: Tensor, start: Tensor, first: Tensor, second: Tensor, concave: Floats
    ) -> tuple[Floats, Floats]:
        """What points prove about `start` in float64, and with which multipliers: each [n]."""
        margins = self.exact.evaluate(point, first, second)
        margins = replace(margins, value_error=ROUNDINGS * margins.value_error)
        return best_dual_value(margins, point, start, concave)


class FastMargins:
    """Margins and gradients in float32, for searches."""

    def __init__(self, network: ExportedNetwork, stages: Stages) -> None:
        self._layers = [
            (
                torch.from_numpy(network.layers[number].tensors()[f"{name}.weight"]),
                torch.from_numpy(network.layers[number].tensors()[f"{name}.bias"]),
                network.layers[number + 1].attributes()["function"],
            )
            for number in stages.numbers
            for name in [network.layers[number].name]
        ]
        self._rows = torch.from_numpy(network.head.weight)
        self._bias = torch.from_numpy(network.head.bias)

    def margin(self, first: Tensor, second: Tensor) -> Margin:
        """F_first − f_second for each row."""
        rows = self._rows[first] - self._rows[second]
        bias = self._bias[first] - self._bias[second]

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            derivatives = []
            for weight, offset, function in self._layers:
                z = F.linear(x, weight, offset)
                x = IN_TRAINING[function](z)
                derivatives.append(slope_of(function, z, x))
            v = rows
            for (weight, _, _), derivative in zip(
                reversed(self._layers), reversed(derivatives), strict=True
            ):
                v = (v * derivative) @ weight
            return (x * rows).sum(1) + bias, v

        return evaluate


def slope_of(function: str, z: Tensor, value: Tensor) -> Tensor:
    """φ'(z), given φ(z)."""
    if function == "softplus":
        return torch.sigmoid(z)
    if function == "tanh":
        return 1 - value * value
    return value * (1 - value)


class CurvatureReference(UnsoundReference):
    """The paper's own reading: the runner-up class alone, float32, the inner problem as solved."""

    def __init__(
        self, network: ExportedNetwork, curvature: Floats, device: torch.device | None = None
    ) -> None:
        super().__init__(network, device)
        self._curvature = torch.from_numpy(curvature).float()
        self.fast = FastMargins(network, dense_stages_of(network))

    def radii(self, scores: Floats, lipschitz: float) -> Floats:
        """The scores: they are radii already."""
        return scores

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        x0 = images.cpu().float() / 255
        logits = self.network.logits(self.network.trunk(x0))
        labels = labels.cpu()
        others = logits.scatter(1, labels[:, None], -math.inf)
        second = others.argmax(1)
        margin = self.fast.margin(labels, second)
        x0 = x0.flatten(1)
        sides = self._curvature[labels, second], self._curvature[second, labels]
        x, eta, _ = nearest_point(margin, x0, *sides, MANY)
        dual = ((x - x0) ** 2).sum(1) + 2 * eta * margin(x)[0]
        correct = logits.argmax(1) == labels
        return torch.where(correct & (dual > 0), dual.clamp(min=0).sqrt(), 0.0)
