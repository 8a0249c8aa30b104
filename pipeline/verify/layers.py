"""One layer of the certified function, read from its record and the stored tensors.

Notable: a kind that is not known here is refused, never taken to be 1-Lipschitz; so is an attribute
that is not understood (a dilation, say).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.verify.elementary import SLOPES
from pipeline.verify.outward import Float64
from pipeline.verify.refusal import Refusal, quote, require
from pipeline.verify.strict_json import Record
from pipeline.verify.tensors import TensorStore
from pipeline.verify.torus import Axis, Torus

TWIST = re.compile(r"[0-9]{1,4}(/[0-9]{1,4})?")
LARGEST_STRIDE = 64
LARGEST_PADDING = 64
LARGEST_SIDE = 1024
LARGEST_LAYER = 2**28
"""Numbers in an input or in a kernel's polyphase taps: a small file must not ask for hours."""


@dataclass(frozen=True)
class Layer:
    """One layer of the trunk, its shapes and tensors consistent with each other."""

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    bound: float
    """The claimed Lipschitz bound."""
    weight: Float64 | None = None
    """[O, I] (dense) or [O, I, kh, kw] (conv2d)."""
    bias: Float64 | None = None
    """[O]."""
    center: float = 0.0
    """What a shift subtracts."""
    axes: tuple[Axis, Axis] | None = None
    """Geometry of a convolution."""
    function: str = ""
    """Of an activation."""
    outer: Float64 | None = None
    """G [D, h] of a slope residual."""
    hint: Torus | None = None
    """The torus that the certificate names for its proof; not trusted."""

    def __str__(self) -> str:
        return f"layer {quote(self.name)} ({self.kind})"


def read_layer(record: Record, store: TensorStore) -> Layer:
    """The layer of one record of `layers`, with its tensors.

    Raises:
        Refusal: an unknown kind or attribute; shapes that do not fit.
    """
    name, kind = record.text("name"), record.text("kind")
    record.where = f"layer {quote(name)}"
    record.only({"name", "kind", "input_shape", "attributes", "bound", "method", "evidence"})
    record.text("method")
    evidence = record.record("evidence").values
    bound = record.number("bound")
    require(bound >= 0, f"{record.where} claims the bound {bound!r}, which is negative")
    shape = record.shape("input_shape", (1, 3))
    require(
        math.prod(shape) <= LARGEST_LAYER and max(shape[1:], default=1) <= LARGEST_SIDE,
        f"{record.where} takes inputs of shape {list(shape)}, larger than this program checks",
    )
    attributes = record.record("attributes")
    if kind == "conv2d":
        return _read_convolution(name, shape, bound, attributes, evidence, store)
    if kind == "dense":
        attributes.only(set())
        weight, bias = store.take(f"{name}.weight", 2), store.take(f"{name}.bias", 1)
        require(
            shape == weight.shape[1:] and bias.shape == weight.shape[:1],
            f"{record.where}: input {list(shape)}, weight {list(weight.shape)} and bias "
            f"{list(bias.shape)} do not fit",
        )
        return Layer(name, kind, shape, weight.shape[:1], bound, weight, bias)
    if kind == "shift":
        attributes.only({"center"})
        center = attributes.number("center")
        return Layer(name, kind, shape, shape, bound, center=center)
    if kind == "activation":
        attributes.only({"function"})
        function = attributes.text("function")
        require(function in SLOPES, f"{record.where} has the unknown activation {quote(function)}")
        return Layer(name, kind, shape, shape, bound, function=function)
    if kind == "slope_residual":
        return _read_slope_residual(name, shape, bound, attributes, store)
    attributes.only(set())
    if kind == "minmax":
        require(shape[0] % 2 == 0, f"{record.where} pairs an odd number of channels")
        return Layer(name, kind, shape, shape, bound)
    if kind == "flatten":
        return Layer(name, kind, shape, (math.prod(shape),), bound)
    raise Refusal(f"{record.where} is of the unknown kind {quote(kind)}")


def _read_slope_residual(
    name: str, shape: tuple[int, ...], bound: float, attributes: Record, store: TensorStore
) -> Layer:
    """X + G·φ(Wx + b)."""
    attributes.only({"function"})
    function = attributes.text("function")
    require(function in SLOPES, f"layer {quote(name)}: unknown activation {quote(function)}")
    weight, bias = store.take(f"{name}.weight", 2), store.take(f"{name}.bias", 1)
    outer = store.take(f"{name}.outer", 2)
    require(
        shape == weight.shape[1:]
        and bias.shape == weight.shape[:1]
        and outer.shape == weight.shape[::-1],
        f"layer {quote(name)}: input {list(shape)}, weight {list(weight.shape)}, bias "
        f"{list(bias.shape)} and outer weight {list(outer.shape)} do not fit",
    )
    kind = "slope_residual"
    return Layer(name, kind, shape, shape, bound, weight, bias, function=function, outer=outer)


def _read_convolution(
    name: str,
    shape: tuple[int, ...],
    bound: float,
    attributes: Record,
    evidence: dict[str, Any],
    store: TensorStore,
) -> Layer:
    attributes.only({"stride", "padding"})
    strides = attributes.pair("stride", 1, LARGEST_STRIDE)
    paddings = attributes.pair("padding", 0, LARGEST_PADDING)
    weight, bias = store.take(f"{name}.weight", 4), store.take(f"{name}.bias", 1)
    require(
        len(shape) == 3 and shape[0] == weight.shape[1] and bias.shape == weight.shape[:1],
        f"layer {quote(name)}: input {list(shape)}, weight {list(weight.shape)} and bias "
        f"{list(bias.shape)} do not fit",
    )
    high, wide = (
        Axis(inputs, kernel, stride, padding)
        for inputs, kernel, stride, padding in zip(
            shape[1:], weight.shape[2:], strides, paddings, strict=True
        )
    )
    require(
        high.outputs >= 1 and wide.outputs >= 1,
        f"layer {quote(name)}: its kernel does not fit into its input",
    )
    taps = weight[..., 0, 0].size * math.prod(axis.taps * axis.stride for axis in (high, wide))
    require(taps <= LARGEST_LAYER, f"layer {quote(name)}: its stride is too large for its kernel")
    output = (weight.shape[0], high.outputs, wide.outputs)
    return Layer(
        name, "conv2d", shape, output, bound, weight, bias, axes=(high, wide), hint=_hint(evidence)
    )


def _hint(evidence: dict[str, Any]) -> Torus | None:
    """Torus sizes and twists as the evidence names them, or None: a hint is never required."""
    try:
        rows, columns = (int(size) for size in evidence["torus"])
        first, second = (Fraction(_plain(twist)) for twist in evidence["twist"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return Torus((rows, columns), (first, second))


def _plain(twist: object) -> str:
    """`twist` if it is written like "1/2". Of "1e999999999" a Fraction would fill the memory."""
    if not isinstance(twist, str) or TWIST.fullmatch(twist) is None:
        raise ValueError
    return twist
