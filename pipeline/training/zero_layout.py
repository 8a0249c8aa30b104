"""Where ZeRO keeps the values that a rank owns: all that we touch of DeepSpeed's insides.

Notable:
- Stages 1 and 2 cut the concatenation of all parameters into equal parts, so that a part begins and
  ends within parameters; stage 3 cuts every parameter. In either case a rank owns, of each group of
  parameters, one flat float32 tensor, which is what its optimizer updates.
- Both cuts are padded to equal lengths. Padding is in no `Shard`, hence in no norm and no file.
- DeepSpeed's own accessors (`safe_get_local_…`, `safe_get_full_…`) are of no use here: the local
  ones are for stage 3 only, and the full ones reduce each tensor over all ranks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """The run of one parameter's values that this rank owns."""

    name: str
    start: int
    """Position of the first one in the flattened parameter."""
    offset: int
    """Position of the first one in the group's flat tensor."""
    length: int

    @property
    def stop(self) -> int:
        """Position behind the last one in the flattened parameter."""
        return self.start + self.length

    def of(self, flat: Tensor) -> Tensor:
        """This shard's part of a tensor laid out as the group's: [length], a view."""
        return flat[self.offset : self.offset + self.length]


@dataclass(frozen=True)
class Group:
    """Parameters that ZeRO updates as one."""

    flat: Tensor
    """[n] float32: the values that this rank owns, padding included; key of the optimizer state."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of all parameters of the group, whole."""
    shards: tuple[Shard, ...]
    """What this rank owns of them; nothing is empty."""


class Layout(ABC):
    """How the parameters lie on the ranks. Fixed when the engine is made."""

    groups: tuple[Group, ...]

    @abstractmethod
    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Name and averaged gradient of each shard, between the last backward and the step.

        The tensors are DeepSpeed's: what is written to them is what the step sees.
        """

    @abstractmethod
    def publish(self) -> None:
        """Make the model's weights those in the groups' flat tensors. A collective."""


class FlatLayout(Layout):
    """Stages 1 and 2: every rank has all weights, and owns a part of their concatenation.

    Args:
        zero: DeepSpeed's optimizer (`DeepSpeedZeroOptimizer`).
        names: of the parameters.
    """

    def __init__(self, zero: Any, names: Mapping[Tensor, str]) -> None:
        self._zero, self._names = zero, names
        self.groups = tuple(
            Group(
                flat,
                {names[param]: tuple(param.shape) for param in params},
                tuple(self._shard(param) for param in params if param._hp_mapping is not None),
            )
            for flat, params in zip(
                zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True
            )
        )

    def _shard(self, param: Any) -> Shard:
        whole, mine = param._hp_mapping.lp_fragment_address, param._hp_mapping.hp_fragment_address
        return Shard(self._names[param], whole.start, mine.start, mine.numel)

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """See `Layout.gradients`."""
        for number, params in enumerate(self._zero.params_in_partition):
            # The list of gradients may end with one more, which is padding.
            for param, gradient in zip(params, self._zero.averaged_gradients[number], strict=False):
                yield self._names[param], gradient

    def publish(self) -> None:
        """See `Layout.publish`."""
        self._zero.update_lp_params()


class ParameterLayout(Layout):
    """Stage 3: every rank owns a part of each parameter.

    Args:
        zero: DeepSpeed's optimizer (`DeepSpeedZeroOptimizer_Stage3`).
        names: of the parameters.
        rank: of this process.
    """

    def __init__(self, zero: Any, names: Mapping[Tensor, str], rank: int) -> None:
        self._zero, self._names, self._rank = zero, names, rank
        self.groups = tuple(
            Group(
                flat,
                {names[param]: tuple(param.ds_shape) for param in params},
                tuple(shard for param in params if (shard := self._shard(param)).length > 0),
            )
            for flat, params in zip(
                zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True
            )
        )

    def _shard(self, param: Any) -> Shard:
        _, offset, size = self._zero.grad_position[self._zero.get_param_id(param)]
        start = min(self._rank * size, param.ds_numel)
        length = min(size, param.ds_numel - start)
        assert param.ds_numel == math.prod(param.ds_shape)
        return Shard(self._names[param], start, offset, length)

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """See `Layout.gradients`."""
        for number, params in enumerate(self._zero.fp16_groups):
            lengths = {shard.name: shard.length for shard in self.groups[number].shards}
            for param, gradient in zip(params, self._zero.averaged_gradients[number], strict=True):
                name = self._names[param]
                if name in lengths:
                    yield name, gradient[: lengths[name]]

    def publish(self) -> None:
        """See `Layout.publish`."""
        # What is gathered now is of the old weights; the next forward gathers the new ones.
        self._zero.parameter_offload.partition_all_parameters()
        for owned, group in zip(self._zero.fp16_partitioned_groups_flat, self.groups, strict=True):
            owned.data.copy_(group.flat.data)
