"""Writing and reading the tensors and attributes of a layer, with errors that name them.

Notable: an exported layer declares with its fields what of it is stored, and how it is read:

    weight: np.ndarray = field(metadata=tensor(ndim=4))
    stride: int = field(metadata=whole(least=1))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor


def to_float32(tensor: Tensor) -> np.ndarray:
    """A copy to store: rounded once to float32, on the CPU, in C order."""
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")


TENSOR, ATTRIBUTE, BY_HAND = "tensor", "attribute", "by hand"
Metadata = Mapping[str, Any]


def tensor(ndim: int | None = None) -> Metadata:
    """Of a field that is the float32 tensor "<layer>.<field>", of `ndim` axes or of any number."""
    return {TENSOR: partial(read_tensor, ndim=ndim)}


def whole(least: int) -> Metadata:
    """Of a field that is an attribute, a whole number of at least `least`."""
    return {ATTRIBUTE: partial(read_int, least=least)}


def number() -> Metadata:
    """Of a field that is an attribute, a finite number."""
    return {ATTRIBUTE: read_float}


def word() -> Metadata:
    """Of a field that is an attribute, a name."""
    return {ATTRIBUTE: read_word}


def by_hand() -> Metadata:
    """Of a field that the layer's own `tensors` and `from_record` write and read."""
    return {BY_HAND: True}


def read_tensor(tensors: Mapping[str, np.ndarray], name: str, ndim: int | None) -> np.ndarray:
    """The stored float32 array `name`.

    Raises:
        ValueError: it is missing, not float32, or has another number of axes than `ndim`.
    """
    if name not in tensors:
        raise ValueError(f"tensor {name!r} is missing from the stored weights")
    array = tensors[name]
    axes = array.ndim if ndim is None else ndim
    if array.dtype != np.float32 or array.ndim != axes:
        raise ValueError(
            f"tensor {name!r} is {array.dtype} with {array.ndim} axes, expected float32 with {axes}"
        )
    return array


def read_int(name: str, attributes: Mapping[str, Any], key: str, least: int) -> int:
    """The whole number `key` of layer `name`.

    Raises:
        ValueError: it is missing, no whole number, or below `least`.
    """
    value = attributes.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"layer {name!r}: {key} is {value!r}, expected a whole number of at least {least}"
        )
    return value


def read_float(name: str, attributes: Mapping[str, Any], key: str) -> float:
    """The number `key` of layer `name`.

    Raises:
        ValueError: it is missing or not finite.
    """
    value = attributes.get(key)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass  # an integer beyond all floats
    raise ValueError(f"layer {name!r}: {key} is {value!r}, expected a finite number")


def read_word(name: str, attributes: Mapping[str, Any], key: str) -> str:
    """The name `key` of layer `name`.

    Raises:
        ValueError: it is missing or no text.
    """
    value = attributes.get(key)
    if not isinstance(value, str):
        raise ValueError(f"layer {name!r}: {key} is {value!r}, expected a name")
    return value


def require_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse a shape that does not fit the layer's weight.

    Raises:
        ValueError: the shapes differ.
    """
    if shape != expected:
        raise ValueError(
            f"{name!r} has the shape {list(shape)}, but the layer's weight takes {list(expected)}"
        )
