"""Pieces of tensors: what a rank of a sharded run saves, and what any other run can read back.

Notable: a checkpoint knows tensors by name and flat position only, never ranks or ZeRO stages. So
what 4 processes wrote under stage 3, 2 read under stage 1: each asks for the pieces that it needs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Fragment:
    """A run of a tensor's values, flattened in row-major order."""

    values: Tensor
    """[n], on the CPU."""
    start: int
    """Position of the first value in the whole tensor."""
    shape: tuple[int, ...]
    """Of the whole tensor."""

    def __post_init__(self) -> None:
        assert self.values.dim() == 1, "a fragment is flat"
        assert 0 <= self.start <= self.stop <= math.prod(self.shape), "a fragment lies within"

    @property
    def stop(self) -> int:
        """Position behind the last value."""
        return self.start + len(self.values)


Part = Mapping[str, Tensor | Fragment]
"""What one rank saves of "model", "optimizer", …: whole tensors, or its fragments, by name."""


class SavedState(ABC):
    """The tensors of a checkpoint, whoever wrote them in whatever pieces."""

    @abstractmethod
    def names(self, part: str) -> list[str]:
        """Names of the tensors of a part, sorted; [] for a part that is not there."""

    @abstractmethod
    def shape(self, part: str, name: str) -> tuple[int, ...]:
        """Shape of a whole tensor; KeyError if there is none of this name."""

    @abstractmethod
    def piece(self, part: str, name: str, start: int, stop: int) -> Tensor:
        """Values [start, stop) of the flattened tensor: [stop - start], on the CPU, a copy."""

    def whole(self, part: str, name: str) -> Tensor:
        """The tensor in its shape, on the CPU, a copy."""
        shape = self.shape(part, name)
        return self.piece(part, name, 0, math.prod(shape)).reshape(shape)

    def part(self, part: str) -> dict[str, Tensor]:
        """All tensors of a part, whole."""
        return {name: self.whole(part, name) for name in self.names(part)}


class WholeState(SavedState):
    """Tensors that are in memory, whole.

    Args:
        tensors: by part and name.
    """

    def __init__(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._tensors = tensors

    def names(self, part: str) -> list[str]:
        """See `SavedState.names`."""
        return sorted(self._tensors.get(part, {}))

    def shape(self, part: str, name: str) -> tuple[int, ...]:
        """See `SavedState.shape`."""
        return tuple(self._tensors[part][name].shape)

    def piece(self, part: str, name: str, start: int, stop: int) -> Tensor:
        """See `SavedState.piece`."""
        return self._tensors[part][name].detach().cpu().flatten()[start:stop].clone()
