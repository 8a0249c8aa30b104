"""An exported network as the methods for smaller networks see it: affine maps and activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.layers.activation import ExportedActivation
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.layers.dense import ExportedDense
from pipeline.layers.flatten import ExportedFlatten
from pipeline.layers.network import ExportedNetwork
from pipeline.layers.shift import ExportedShift
from pipeline.lipschitz.exact_map import ExactMap
from pipeline.lipschitz.rounding import Float64
from pipeline.lipschitz.slopes import Slopes


@dataclass(frozen=True)
class Stages:
    """x_{k+1} = φ_k(W_k x_k + b_k), logits = W_L x_L + b_L; shifts and flattenings aside."""

    maps: list[ExactMap]
    slopes: list[Slopes]
    numbers: list[int]
    """Where each map stands among the network's layers."""
    rows: Float64
    """W_L, [K, d]."""


def stages_of(network: ExportedNetwork) -> Stages:
    """The stages of a network of that form.

    Raises:
        ValueError: a layer that does not belong there, or an affine one without activation.
    """
    maps: list[ExactMap] = []
    slopes: list[Slopes] = []
    numbers: list[int] = []
    for number, layer in enumerate(network.layers):
        if isinstance(layer, ExportedConv2d | ExportedDense) and len(maps) == len(slopes):
            geometry = (
                (layer.stride, layer.padding) if isinstance(layer, ExportedConv2d) else (1, 0)
            )
            maps.append(ExactMap(layer.weight.astype(np.float64), layer.input_shape, *geometry))
            numbers.append(number)
        elif isinstance(layer, ExportedActivation) and len(maps) == len(slopes) + 1:
            slopes.append(layer.slopes)
        elif not isinstance(layer, ExportedFlatten | ExportedShift):
            raise ValueError(
                f"layer {layer.name!r} ({layer.kind}) stands where this method knows none: it is "
                "for convolutions and dense layers with one activation behind each"
            )
    if len(maps) != len(slopes) or not maps:
        raise ValueError(
            "this method needs an activation behind every affine layer of the trunk, and at least "
            "one of them"
        )
    return Stages(maps, slopes, numbers, network.head.weight.astype(np.float64))


def dense_stages_of(network: ExportedNetwork) -> Stages:
    """The stages as all there is to compute, for methods that evaluate the network from them.

    Raises:
        ValueError: a convolution, or a shift, which is no stage; or as `stages_of`.
    """
    for layer in network.layers:
        if isinstance(layer, ExportedConv2d | ExportedShift):
            raise ValueError(
                f"layer {layer.name!r} ({layer.kind}) stands where this method knows none: it is "
                "for dense layers with one activation behind each"
            )
    return stages_of(network)
