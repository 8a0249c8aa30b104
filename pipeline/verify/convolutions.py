"""A convolution read from its record: geometry, tensors, and the torus that its evidence names.

Notable: an attribute that is not understood (a dilation, say) is refused; a hint never has to be
there, and is never believed.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from pipeline.verify.layers import Layer
from pipeline.verify.refusal import quote, require
from pipeline.verify.strict_json import Record
from pipeline.verify.tensors import TensorStore
from pipeline.verify.torus import Axis, Torus

TWIST = re.compile(r"[0-9]{1,4}(/[0-9]{1,4})?")
LARGEST_STRIDE = 64
LARGEST_PADDING = 64
LARGEST_LAYER = 2**28
"""Numbers in an input or in a kernel's polyphase taps: a small file must not ask for hours."""


def read_convolution(
    name: str,
    shape: tuple[int, ...],
    bound: float,
    attributes: Record,
    evidence: dict[str, Any],
    store: TensorStore,
) -> Layer:
    """The layer with its geometry.

    Raises:
        Refusal: tensors, shapes and geometry do not fit, or are larger than this program checks.
    """
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
        name,
        "conv2d",
        shape,
        output,
        bound,
        weight,
        bias,
        axes=(high, wide),
        hint=hint_of(evidence),
    )


def hint_of(evidence: dict[str, Any]) -> Torus | None:
    """Torus sizes and twists as the evidence names them, or None: a hint is never required.

    A size of null says that the axis was not wrapped.
    """
    try:
        rows, columns = (None if size is None else int(size) for size in evidence["torus"])
        first, second = (
            Fraction(0) if size is None else Fraction(_plain(twist))
            for size, twist in zip((rows, columns), evidence["twist"], strict=True)
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return Torus((rows, columns), (first, second))


def _plain(twist: object) -> str:
    """`twist` if it is written like "1/2". Of "1e999999999" a Fraction would fill the memory."""
    if not isinstance(twist, str) or TWIST.fullmatch(twist) is None:
        raise ValueError
    return twist
