"""1-Lipschitz average and max pooling over windows that do not overlap (CPL, Section 4.2).

Notable:
- The average divides a window of q×q by q, not by q²: a row of q² entries 1/q has norm 1, and the
  windows are disjoint. The usual average would have norm 1/q and waste it.
- A maximum over disjoint windows moves no further than its inputs, and rounds nothing.
- A size that the window does not divide is refused: it would drop pixels silently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExactLayer, ExportedLayer, Rounding
from pipeline.layers.records import whole
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.power_iteration import NormRequest


@dataclass(frozen=True)
class _ExportedPool(ExportedLayer):
    """What both have in common.

    Raises:
        ValueError: the window does not divide the maps.
    """

    size: int = field(metadata=whole(least=1))
    """q, side and stride of the windows."""

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or any(side % self.size for side in self.input_shape[1:]):
            raise ValueError(
                f"layer {self.name!r}: windows of {self.size}×{self.size} do not divide inputs of "
                f"shape {list(self.input_shape)}"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[C, H/q, W/q]."""
        channels, *sides = self.input_shape
        return channels, *(side // self.size for side in sides)


@dataclass(frozen=True)
class ExportedAveragePool(_ExportedPool):
    """The sum over a window divided by q, as certified."""

    kind: ClassVar[str] = "average_pool"
    presumed_lipschitz: ClassVar[float | None] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H/q, W/q], float64: additions and one division."""
        channels, height, width = self.output_shape
        windows = x.reshape(len(x), channels, height, self.size, width, self.size)
        return windows.sum(dim=(3, 5)) / self.size

    def norm_bound(self) -> NormBound:
        """1, exactly."""
        return NormBound(1.0, "exact")

    def rounding(self) -> Rounding:
        """A sum of q² terms and a division; all its coefficients are positive, so ‖|W|‖ = 1."""
        terms = self.size**2
        return Rounding(fan_in=terms, abs_norm=1.0, bias_norm=0.0, inner_norm=float(terms))


@dataclass(frozen=True)
class ExportedMaxPool(_ExportedPool, ExactLayer):
    """The largest of a window, as certified."""

    kind: ClassVar[str] = "max_pool"

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H/q, W/q], exact."""
        return F.max_pool2d(x, self.size)


class _Pool(LipschitzLayer):
    """Pooling in training.

    Args:
        size: q.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def norm_request(self) -> NormRequest | None:
        """None: 1-Lipschitz."""
        return None


class AveragePool(_Pool):
    """The sum over q×q divided by q: [B, C, H, W] -> [B, C, H/q, W/q]."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.avg_pool2d(x, self.size, divisor_override=self.size)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedAveragePool(name, input_shape, self.size)]


class MaxPool(_Pool):
    """The largest of q×q: [B, C, H, W] -> [B, C, H/q, W/q]."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.max_pool2d(x, self.size)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedMaxPool(name, input_shape, self.size)]
