"""Shift: x − center, so that images in [0, 1] reach the first weights centred.

Notable: a shift has Lipschitz constant 1 and moves no radius. Dividing by a standard deviation
would multiply distances by 1/σ; the networks here do not do it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import number
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.power_iteration import NormRequest


@dataclass(frozen=True)
class ExportedShift(ExportedLayer):
    """x − center as certified; `center` is the float64 number itself."""

    kind: ClassVar[str] = "shift"

    center: float = field(metadata=number())

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...], one rounding an entry."""
        return x - self.center

    def norm_bound(self) -> NormBound:
        """1, exactly."""
        return NormBound(1.0, "exact")

    def rounding(self) -> Rounding:
        """One subtraction an entry: W = I, b = −center everywhere."""
        size = math.prod(self.input_shape)
        # The square root and the product are off by an ulp each at the most.
        bias_norm = abs(self.center) * math.sqrt(size) * (1 + 1e-15)
        return Rounding(fan_in=1, abs_norm=1.0, bias_norm=bias_norm)


class Shift(LipschitzLayer):
    """x − center in training."""

    def __init__(self, center: float) -> None:
        super().__init__()
        self.center = float(center)

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        return x - self.center

    def norm_request(self) -> NormRequest | None:
        """None: a translation."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedShift(name, input_shape, self.center)]
