"""GroupSort (Anil et al. 2019): g consecutive channels sorted. 1-Lipschitz, rounds nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExactLayer, ExportedLayer
from pipeline.layers.records import whole
from pipeline.lipschitz.power_iteration import NormRequest


def group_sort(x: Tensor, size: int) -> Tensor:
    """[B, C, ...] -> [B, C, ...], each `size` consecutive channels in ascending order."""
    groups = x.reshape(len(x), x.shape[1] // size, size, *x.shape[2:])
    return groups.sort(dim=2).values.reshape(x.shape)


@dataclass(frozen=True)
class ExportedGroupSort(ExactLayer):
    """GroupSort as certified.

    Raises:
        ValueError: the groups do not divide the channels.
    """

    kind: ClassVar[str] = "group_sort"

    size: int = field(metadata=whole(least=1))
    """g."""

    def __post_init__(self) -> None:
        if self.input_shape[0] % self.size:
            raise ValueError(
                f"layer {self.name!r}: groups of {self.size} do not divide "
                f"{self.input_shape[0]} channels"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, C, ...], exact."""
        return group_sort(x, self.size)


class GroupSort(LipschitzLayer):
    """GroupSort in training.

    Args:
        size: g.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, C, ...]."""
        return group_sort(x, self.size)

    def norm_request(self) -> NormRequest | None:
        """None: 1-Lipschitz."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedGroupSort(name, input_shape, self.size)]
