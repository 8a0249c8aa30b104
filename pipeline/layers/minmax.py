"""MinMax, the activation of LiResNet: channel halves sorted pairwise (Anil et al. 2019).

Notable:
- Halves, not neighbours: channel c is paired with channel c + C/2; the maxima come first.
- By comparison. min = a + b − max would round, and cost the exactness that certification uses.
- Sorting is a permutation at every point, hence 1-Lipschitz, and in floats it rounds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExactLayer, ExportedLayer
from pipeline.lipschitz.power_iteration import NormRequest


def minmax(x: Tensor) -> Tensor:
    """[B, C, ...] -> [B, C, ...], C even: maxima of the channel halves, then their minima."""
    first, second = x.chunk(2, dim=1)
    return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)


@dataclass(frozen=True)
class ExportedMinMax(ExactLayer):
    """MinMax as certified; for maps [C, H, W] and vectors [D] alike.

    Raises:
        ValueError: an odd number of channels.
    """

    kind: ClassVar[str] = "minmax"

    def __post_init__(self) -> None:
        if self.input_shape[0] % 2:
            raise ValueError(
                f"layer {self.name!r}: MinMax pairs the halves of the channels and is given an odd "
                f"number, {self.input_shape[0]}; choose an even width"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, C, ...], exact."""
        return minmax(x)


class MinMax(LipschitzLayer):
    """MinMax in training."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, C, ...], C even."""
        return minmax(x)

    def norm_request(self) -> NormRequest | None:
        """None: 1-Lipschitz."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedMinMax(name, input_shape)]
