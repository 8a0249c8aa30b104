"""ExportedLayer: one layer of the function that is certified, exactly as its tensors are stored.

Notable:
- Training parametrises a layer (I + β·W/√L, normalised rows); the certificate speaks of the exact
  real function of *exported* tensors: the kernel with all of that folded in, rounded once to
  float32, stored and hashed. A training layer makes its exported twin in `export`.
- An exported layer knows four things: how to compute itself in float64, how steep it is at the
  most (`norm_bound`), how much its arithmetic can be off (`rounding`), and how to be written down
  (its fields, see `records`). A kind that nobody registered is an error, never "1-Lipschitz".
- `pipeline/verify/` reads the same records and shares no code with this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from pipeline.layers.records import ATTRIBUTE, BY_HAND, TENSOR
from pipeline.lipschitz.bound import NormBound

KINDS: dict[str, type[ExportedLayer]] = {}
NOT_OF_A_KIND = ("name", "input_shape")


@dataclass(frozen=True)
class Rounding:
    """What the forward-rounding recursion needs of a float64 layer that errs as y = Wx + b does."""

    fan_in: int
    """n, the longest sum of products that makes one output (bias not counted)."""
    abs_norm: float
    """a, an upper bound of the l2 norm of |W| (entrywise absolute value)."""
    bias_norm: float
    """B, an upper bound of the l2 norm of the whole bias vector (all positions)."""
    inner_norm: float = 0.0
    """For layers made of several sums, whose inside can be larger than a·‖x‖ + B: no number there
    is beyond `inner_norm`·‖x‖ + `inner_bias`. Below 2^990 none overflows."""
    inner_bias: float = 0.0


@dataclass(frozen=True)
class ExportedLayer(ABC):
    """One layer. Subclasses are frozen dataclasses; their fields are what is stored of them."""

    kind: ClassVar[str]
    presumed_lipschitz: ClassVar[float | None] = None
    """What papers take its constant for without computing anything; None where they run a power
    iteration. For `vra_unsound` alone."""

    name: str
    """Dotted and unique in the network, e.g. "backbone.3.conv"; prefix of its tensors' names."""
    input_shape: tuple[int, ...]
    """[C, H, W] or [D], without the batch."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one output, without the batch."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer: [B, *input_shape] float64 -> [B, *output_shape] float64.

        Matrix products only (on a GPU convolutions are unfold + matmul), so that the rounding
        model of docs/certificate.md §5 covers it on every device.
        """

    @abstractmethod
    def norm_bound(self) -> NormBound:
        """A proved upper bound of the layer's Lipschitz constant."""

    def tight_norm_bound(self) -> NormBound:
        """One nearer to the constant and more costly, where there is one; else `norm_bound`."""
        return self.norm_bound()

    @abstractmethod
    def rounding(self) -> Rounding | None:
        """How its float64 arithmetic can be off; None where it is exact (MinMax, flatten)."""

    def tensors(self) -> dict[str, np.ndarray]:
        """The stored arrays by full name, e.g. {"stem.weight": ..., "stem.bias": ...}."""
        return {
            f"{self.name}.{each.name}": getattr(self, each.name)
            for each in _stored(type(self))
            if TENSOR in each.metadata
        }

    def attributes(self) -> dict[str, Any]:
        """Plain JSON values that, with the tensors, define the layer, e.g. {"stride": 2}."""
        return {
            each.name: getattr(self, each.name)
            for each in _stored(type(self))
            if ATTRIBUTE in each.metadata
        }

    @classmethod
    def from_record(
        cls,
        name: str,
        input_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray],
    ) -> Self:
        """Read back what `tensors` and `attributes` wrote.

        Raises:
            ValueError: one is missing or of the wrong kind, or they do not fit each other.
        """
        values: dict[str, Any] = {}
        for each in _stored(cls):
            if TENSOR in each.metadata:
                values[each.name] = each.metadata[TENSOR](tensors, f"{name}.{each.name}")
            else:
                values[each.name] = each.metadata[ATTRIBUTE](name, attributes, each.name)
        return cls(name, input_shape, **values)


class ExactLayer(ExportedLayer):
    """A layer without tensors that is 1-Lipschitz and, in floats, rounds nothing."""

    presumed_lipschitz: ClassVar[float | None] = 1.0

    def norm_bound(self) -> NormBound:
        """1, exactly."""
        return NormBound(1.0, "exact")

    def rounding(self) -> None:
        """None: nothing is rounded."""
        return


def _stored(kind: type[ExportedLayer]) -> list[Field[Any]]:
    """The fields that define a layer beside its name and input: each says how it is read."""
    found = [each for each in fields(kind) if each.compare and each.name not in NOT_OF_A_KIND]
    for each in found:
        assert {TENSOR, ATTRIBUTE, BY_HAND} & each.metadata.keys(), (
            f"{kind.__name__}.{each.name} is not stored: give it metadata, or compare=False"
        )
    return [each for each in found if BY_HAND not in each.metadata]


def layer_from_record(
    record: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> ExportedLayer:
    """Make a layer from its record in certificate.json and the tensors of model.safetensors.

    Raises:
        ValueError: a kind that no layer here has.
    """
    kind = record["kind"]
    if kind not in KINDS:
        raise ValueError(
            f"layer {record['name']!r} is of the unknown kind {kind!r}; known: {sorted(KINDS)}"
        )
    return KINDS[kind].from_record(
        record["name"], tuple(record["input_shape"]), record.get("attributes", {}), tensors
    )
