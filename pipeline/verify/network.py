"""The certified function, rebuilt from certificate.json and the stored tensors.

Notable: a tensor that no layer uses is refused, and so is one that two layers use.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.verify.layers import Layer
from pipeline.verify.outward import Float64
from pipeline.verify.reading import read_layer
from pipeline.verify.refusal import quote, require
from pipeline.verify.strict_json import Record
from pipeline.verify.tensors import TensorStore


@dataclass(frozen=True)
class Network:
    """Trunk and head: logits = weight · trunk(x) + bias."""

    layers: list[Layer]
    weight: Float64
    """[K, d] head rows."""
    bias: Float64
    """[K]."""
    input_shape: tuple[int, ...]
    """[C, H, W]."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.weight)


def read_network(certificate: Record, tensors: dict[str, Float64]) -> Network:
    """The network that a certificate describes.

    Raises:
        Refusal: naming the layer that does not fit the one before it, its kind or its tensors.
    """
    store = TensorStore(tensors)
    input_shape = certificate.record("input").shape("shape", (3,))
    shape, names = input_shape, set()
    layers = []
    for number, values in enumerate(certificate.items("layers")):
        require(isinstance(values, dict), f"certificate.json: layer {number} is not an object")
        layer = read_layer(Record(values, f"certificate.json: layer {number}"), store)
        require(layer.name not in names, f"two layers have the name {quote(layer.name)}")
        require(
            layer.input_shape == shape,
            f"{layer} takes inputs of shape {list(layer.input_shape)}, but is given {list(shape)}",
        )
        names.add(layer.name)
        shape = layer.output_shape
        layers.append(layer)
    head = certificate.record("head")
    head.only({"weight", "bias", "max_margin_lipschitz"})
    weight = store.take(head.text("weight"), 2)
    bias = store.take(head.text("bias"), 1)
    require(
        shape == weight.shape[1:],
        f"the head takes features of shape {list(weight.shape[1:])}, but is given {list(shape)}",
    )
    require(len(bias) == len(weight), f"the head has {len(weight)} rows but {len(bias)} biases")
    require(len(weight) >= 2, "the head has fewer than two classes")
    store.all_taken()
    return Network(layers, weight, bias, input_shape)
