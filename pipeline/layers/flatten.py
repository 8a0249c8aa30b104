"""Flatten: a map [C, H, W] as a vector [C·H·W], channels outermost. An isometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExactLayer, ExportedLayer
from pipeline.lipschitz.power_iteration import NormRequest


@dataclass(frozen=True)
class ExportedFlatten(ExactLayer):
    """Flatten as certified."""

    kind: ClassVar[str] = "flatten"

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[C·H·W]."""
        return (math.prod(self.input_shape),)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C·H·W], exact."""
        return x.flatten(1)


class Flatten(LipschitzLayer):
    """Flatten in training."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C·H·W]."""
        return x.flatten(1)

    def norm_request(self) -> NormRequest | None:
        """None: an isometry."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedFlatten(name, input_shape)]
