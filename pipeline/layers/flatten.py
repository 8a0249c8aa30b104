"""Flatten: a map [C, H, W] as a vector [C·H·W], channels outermost. An isometry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExportedLayer
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.power_iteration import NormRequest


@dataclass(frozen=True)
class ExportedFlatten(ExportedLayer):
    """Flatten as certified."""

    kind: ClassVar[str] = "flatten"

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[C·H·W]."""
        return (math.prod(self.input_shape),)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C·H·W], exact."""
        return x.flatten(1)

    def norm_bound(self) -> NormBound:
        """1, exactly."""
        return NormBound(1.0, "exact")

    def rounding(self) -> None:
        """None: nothing is computed."""
        return

    @classmethod
    def from_record(
        cls,
        name: str,
        input_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray],
    ) -> ExportedFlatten:
        """Nothing but name and shape is stored."""
        return cls(name, input_shape)


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
