"""Activation: ReLU, leaky ReLU, softplus, sigmoid or tanh, in training and as certified.

Notable: an activation is more than 1-Lipschitz. Its slopes are restricted to [α, β], which is what
LipLT uses, and smooth ones have bounded second derivatives, which is what CRC uses
(`pipeline.lipschitz.slopes`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.elementary import ERROR_UNITS, activate
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import word
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.power_iteration import NormRequest
from pipeline.lipschitz.rounding import mul_up, sqrt_upper
from pipeline.lipschitz.slopes import LEAK, Slopes, slopes_of

IN_TRAINING = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, LEAK),
    "softplus": F.softplus,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
}


@dataclass(frozen=True)
class ExportedActivation(ExportedLayer):
    """An elementwise activation as certified.

    Raises:
        ValueError: an unknown function.
    """

    kind: ClassVar[str] = "activation"

    function: str = field(metadata=word())

    def __post_init__(self) -> None:
        slopes_of(self.function)

    @property
    def slopes(self) -> Slopes:
        """α, β and the bounds of φ''."""
        return slopes_of(self.function)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]; float32, for comparisons, by torch's own functions."""
        if x.element_size() < 8:
            return IN_TRAINING[self.function](x)
        return activate(self.function, x)

    def norm_bound(self) -> NormBound:
        """β: the Lipschitz constant, exactly."""
        return NormBound(self.slopes.most, "exact")

    def rounding(self) -> Rounding | None:
        """ERROR_UNITS·u·max(1, |φ|), written as γ_n(a N + B): |φ(x)| ≤ β|x| + |φ(0)|."""
        if self.function == "relu":
            return None
        entries = sqrt_upper(float(math.prod(self.input_shape)))
        # |φ(0)| ≤ ln 2, and 1 where |φ| is less
        return Rounding(
            fan_in=ERROR_UNITS,
            abs_norm=self.slopes.most,
            bias_norm=mul_up(entries, 1.0 + self.slopes.at_zero),
        )


class Activation(LipschitzLayer):
    """An elementwise activation in training.

    Raises:
        ValueError: an unknown function, with the near miss.
    """

    def __init__(self, function: str) -> None:
        super().__init__()
        self.slopes = slopes_of(function)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        return IN_TRAINING[self.function](x)

    def norm_request(self) -> NormRequest | None:
        """None: no weights. β counts all the same, see `pipeline.models.slope_network`."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedActivation(name, input_shape, self.function)]
