"""ExportedNetwork: the function that is certified, layer by layer, with everything it is made of.

Notable: it holds no torch module and no training parameter. `records` and `tensors` go into the
certificate and its safetensors file; `from_records` reads the same function back from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

# Importing a layer's file registers its exported kind.
from pipeline.layers import (  # noqa: F401
    activation,
    circular,
    conv2d,
    convex_potential,
    dense,
    flatten,
    group_sort,
    implicit_potential,
    isometries,
    minmax,
    pooling,
    residual,
    scale,
    shift,
    skew,
    slope_residual,
)
from pipeline.layers.exported import ExportedLayer, layer_from_record
from pipeline.layers.head import ExportedHead


@dataclass(frozen=True)
class ExportedNetwork:
    """A trunk of Lipschitz layers and a head. Checked when made.

    Raises:
        ValueError: as `check`.
    """

    layers: tuple[ExportedLayer, ...]
    head: ExportedHead
    input_shape: tuple[int, ...]
    """[C, H, W] of one image."""

    def __post_init__(self) -> None:
        self.check()

    def trunk(self, x: Tensor) -> Tensor:
        """Features: [B, C, H, W] float64 -> [B, d] float64."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def logits(self, features: Tensor) -> Tensor:
        """[B, d] float64 -> [B, K] float64."""
        return self.head.logits(features)

    def records(self) -> list[dict[str, Any]]:
        """One record a layer of the trunk, in order: name, kind, input_shape, attributes."""
        return [
            {
                "name": layer.name,
                "kind": layer.kind,
                "input_shape": list(layer.input_shape),
                "attributes": layer.attributes(),
            }
            for layer in self.layers
        ]

    def tensors(self) -> dict[str, np.ndarray]:
        """Every stored array by full name, the head's included."""
        tensors: dict[str, np.ndarray] = {}
        for layer in self.layers:
            tensors.update(layer.tensors())
        return tensors | self.head.tensors()

    @classmethod
    def from_records(
        cls,
        records: Sequence[Mapping[str, Any]],
        tensors: Mapping[str, np.ndarray],
        input_shape: Sequence[int],
    ) -> ExportedNetwork:
        """Read back what `records` and `tensors` wrote.

        Raises:
            ValueError: an unknown kind, a tensor missing or left over, or as `check`.
        """
        layers = tuple(layer_from_record(record, tensors) for record in records)
        network = cls(layers, ExportedHead.from_tensors(tensors), tuple(input_shape))
        left_over = sorted(set(tensors) - set(network.tensors()))
        if left_over:
            raise ValueError(f"tensor {left_over[0]!r} belongs to no layer of the network")
        return network

    def check(self) -> None:
        """Make sure that this is one well-formed function.

        Raises:
            ValueError: a layer's input is not the output of the one before it, two layers share a
                name, or a stored value is not finite.
        """
        names = [layer.name for layer in self.layers]
        for name in names:
            if names.count(name) > 1 or name == "head":
                raise ValueError(f"two layers have the name {name!r}")
        shape, source = self.input_shape, "the image"
        for layer in self.layers:
            if layer.input_shape != shape:
                raise ValueError(
                    f"layer {layer.name!r} takes inputs of shape {list(layer.input_shape)}, "
                    f"but {source} has {list(shape)}"
                )
            shape, source = layer.output_shape, f"the output of {layer.name!r}"
        if shape != (self.head.features,):
            raise ValueError(
                f"the head takes vectors of {self.head.features} features, "
                f"but {source} has the shape {list(shape)}"
            )
        for name, tensor in self.tensors().items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"tensor {name!r} has a value that is not finite")
