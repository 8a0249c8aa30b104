"""MinMax, the activation of LiResNet: channel halves sorted pairwise (Anil et al. 2019).

Notable:
- Halves, not neighbours: channel c is paired with channel c + C/2; the maxima come first.
- By comparison. min = a + b − max would round, and cost the exactness that certification uses.
- Sorting is a permutation at every point, hence 1-Lipschitz, and in floats it rounds nothing.
- Its backward is the same permutation the other way. Where two channels tie it takes their order as
  they lie; torch's maximum and minimum would share the gradients, at three times the cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExactLayer, ExportedLayer
from pipeline.lipschitz.power_iteration import NormRequest


def minmax(x: Tensor) -> Tensor:
    """[B, C, ...] -> [B, C, ...], C even: maxima of the channel halves, then their minima."""
    sorted_halves: Tensor = _MinMax.apply(x)
    return sorted_halves


class _MinMax(torch.autograd.Function):
    """The halves sorted, with one comparison kept for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        ctx.save_for_backward(first >= second)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (in_order,) = ctx.saved_tensors
        of_maxima, of_minima = gradients[0].chunk(2, dim=1)
        return torch.cat(
            [
                torch.where(in_order, of_maxima, of_minima),
                torch.where(in_order, of_minima, of_maxima),
            ],
            dim=1,
        )


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
