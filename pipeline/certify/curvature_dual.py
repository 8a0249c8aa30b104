"""A lower bound of CRC's dual value that holds at an inexact minimiser, all rounding counted.

For a margin f with ∇²f ⪰ −C·I, a point x̃, a number 0 ≤ η < 1/C and φ(x) = ½‖x − x̂0‖² + η f(x):
φ is (1 − ηC)-strongly convex, so for every x

    φ(x) ≥ d = φ(x̃) − ‖∇φ(x̃)‖² / (2(1 − ηC)).

If f(x) ≤ 0 then ½‖x − x̂0‖² ≥ φ(x) ≥ d. So f > 0 wherever ‖x − x̂0‖ < √(2d): a certified radius
about x̂0, and √(2d) − ‖x̂0 − x0‖ about the exact centre x0 = v/255 (statement R).

The float64 program can only go wrong at the distance t of x0 where f(x) ≤ α + βt, its rounding
there (`ball.py`), and then ½‖x − x̂0‖² ≥ d − η(α + βt). So it is right within s (statement F) if

    ½S² + ηβS + ηα ≤ d,    S = s + ‖x̂0 − x0‖  ≥ ‖x − x̂0‖ and ≥ t:

    S = 2(d − ηα)/(ηβ + √((ηβ)² + 2(d − ηα))), the root of a quadratic.

Notable:
- x̃ and η come from anywhere (`curvature_search`, in float32): they are data, and d is a bound for
  whatever they are.
- f(x̃) is off by δ as in the forward pass of statement R, ∇f(x̃) by e_g: backwards through a layer
      e ↦ ‖W‖(β e + (h e_z + 257u)‖v‖) + γ_{n+1}·‖|W|‖·‖σ'∘v‖,
  e_z the error of its pre-activation, h ≥ |σ''|, 256u the error of σ' (`layers/elementary.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.certify.rounding import SLACK, HeadError, LayerError, norm_upper
from pipeline.certify.stages import Stages
from pipeline.layers.activation import ExportedActivation
from pipeline.layers.elementary import ERROR_UNITS, differentiate
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.curvature_search import best_multiplier
from pipeline.lipschitz.pairwise import pairwise_distance_upper
from pipeline.lipschitz.rounding import UNDERFLOW, UNIT, Float64, gamma

ROOM = 1e-12
"""Relative room for the few dozen roundings of the scalars below: 2^-53 each."""


@dataclass(frozen=True)
class Margins:
    """f_first − f_second at points of its own each, with gradient and what both may be off by."""

    value: Float64
    """[n]."""
    value_error: Float64
    """[n]."""
    gradient: Tensor
    """[n, D]."""
    gradient_error: Float64
    """[n], in 2-norm."""


class MarginFunction:
    """Evaluates margins of a fully connected network in float64, forwards and backwards.

    Args:
        network: flattening, dense layers and smooth activations, a head.
        stages: the same network.
        bounds: proved norms of its layers.
    """

    def __init__(
        self, network: ExportedNetwork, stages: Stages, bounds: Sequence[NormBound]
    ) -> None:
        self._weights = [torch.from_numpy(each.weight) for each in stages.maps]
        self._slopes = stages.slopes
        self._norms = [bounds[number].value for number in stages.numbers]
        self._errors, self._biases, self._functions, self._activations = [], [], [], []
        for number, norm in zip(stages.numbers, self._norms, strict=True):
            layer, following = network.layers[number], network.layers[number + 1]
            assert isinstance(following, ExportedActivation)
            rounding, own = layer.rounding(), following.rounding()
            assert rounding is not None and own is not None
            self._errors.append(LayerError.of(norm, rounding))
            self._activations.append(LayerError.of(following.slopes.most, own))
            self._functions.append(following)
            self._biases.append(torch.from_numpy(layer.tensors()[f"{layer.name}.bias"]).double())
        head = network.head
        self._rows = torch.from_numpy(stages.rows)
        self._head_bias = torch.from_numpy(head.bias).double()
        self._distances = pairwise_distance_upper(head.weight)
        self._head_error = HeadError.of(head.weight, head.bias, self._distances)

    def evaluate(self, x: Tensor, first: Tensor, second: Tensor) -> Margins:
        """Margins at exact float64 points.

        Args:
            x: [n, D].
            first: [n] classes j.
            second: [n] classes i.
        """
        error = np.zeros(len(x))
        hidden: list[tuple[Tensor, Float64]] = []
        for number, weight in enumerate(self._weights):
            error = self._errors[number].after(error, norm_upper(x))
            z = x @ weight.T + self._biases[number]
            hidden.append((z, error))
            error = self._activations[number].after(error, norm_upper(z))
            x = self._functions[number].forward(z)
        logits = x @ self._rows.T + self._head_bias
        margins = logits.gather(1, first[:, None]) - logits
        each = np.arange(len(x))
        deltas = self._head_error.delta(error, norm_upper(x), margins.numpy(), first.numpy())
        gradient, gradient_error = self._backwards(hidden, first, second)
        return Margins(
            margins.gather(1, second[:, None])[:, 0].numpy(),
            deltas[each, second.numpy()],
            gradient,
            gradient_error,
        )

    def _backwards(
        self, hidden: list[tuple[Tensor, Float64]], first: Tensor, second: Tensor
    ) -> tuple[Tensor, Float64]:
        v = self._rows[first] - self._rows[second]
        error = UNIT * norm_upper(v) * SLACK
        for number in reversed(range(len(hidden))):
            (z, z_error), slopes, weight = (
                hidden[number],
                self._slopes[number],
                self._weights[number],
            )
            size = norm_upper(v)
            bent = slopes.bend * z_error + (ERROR_UNITS + 1) * UNIT
            error = (slopes.most * error + bent * size + UNDERFLOW * v.shape[1]) * SLACK
            v = v * differentiate(self._functions[number].function, z)
            terms, own = len(weight) + 1, self._errors[number]
            rounding = gamma(terms) * own.abs_norm * norm_upper(v) + terms * UNDERFLOW
            error = (self._norms[number] * error + rounding) * SLACK
            v = v @ weight
        return v, error


def dual_value(
    margins: Margins, x: Tensor, center: Tensor, eta: Float64, concave: Float64
) -> Float64:
    """d, rounded down: [n]; 0 where nothing is proved.

    Args:
        margins: f at `x`.
        x: [n, D] float64, x̃.
        center: [n, D], x̂0.
        eta: [n], η.
        concave: [n], C.
    """
    away = x - center
    size = (away * away).sum(1).numpy()
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        least = size * (1 - 2 * gamma(x.shape[1] + 4)) - UNDERFLOW * x.shape[1]
        steps = torch.from_numpy(eta)[:, None] * margins.gradient
        off = 4 * UNIT * (norm_upper(away) + norm_upper(steps)) + eta * margins.gradient_error
        slope = (norm_upper(away + steps) + off) * (1 + ROOM)
        strength = 1 - eta * concave * (1 + ROOM) - ROOM
        gain = eta * (margins.value - margins.value_error)
        loss = slope * slope / (2 * strength)
        value = least / 2 + gain - loss
        value = value - ROOM * (size / 2 + np.abs(gain) + eta * margins.value_error + loss)
    good = (strength > 0) & (eta >= 0) & (value > 0) & np.isfinite(value)
    return np.where(good, value, 0.0)


def best_dual_value(
    margins: Margins, x: Tensor, center: Tensor, concave: Float64
) -> tuple[Float64, Float64]:
    """`dual_value` with the η for which it is greatest at this point, and this η: [n] each."""
    value, curvature = torch.from_numpy(margins.value), torch.from_numpy(concave)
    eta = best_multiplier(value, margins.gradient, x - center, curvature)[0].numpy()
    return dual_value(margins, x, center, eta, concave), eta


def dual_radius(margins: Margins, x: Tensor, center: Tensor, concave: Float64) -> Float64:
    """√(2d) about x̂0, rounded down: [n]; 0 where nothing is proved. See `best_dual_value`."""
    return exact_radius(best_dual_value(margins, x, center, concave)[0])


def exact_radius(value: Float64) -> Float64:
    """√(2d) about x̂0, rounded down: [n] -> [n]."""
    return np.asarray(np.sqrt(2 * value) * (1 - ROOM))


def program_radius(value: Float64, eta: Float64, fixed: Float64, growing: Float64) -> Float64:
    """S about x̂0, rounded down: [n]; 0 where nothing is proved.

    Args:
        value: [n], d.
        eta: [n], η with which d was found.
        fixed: [n], α: rounding of the margin at x0.
        growing: [n], β: what it gains for each unit of distance.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        room = (value - eta * fixed * (1 + ROOM)) * (1 - ROOM)
        slope = eta * growing * (1 + ROOM)
        radius = 2 * room / (slope + np.sqrt(slope * slope + 2 * room)) * (1 - ROOM)
    return np.where((room > 0) & np.isfinite(radius), radius, 0.0)
