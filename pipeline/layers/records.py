"""Writing and reading the tensors and attributes of a layer, with errors that name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


def to_float32(tensor: Tensor) -> np.ndarray:
    """A copy to store: rounded once to float32, on the CPU, in C order."""
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")


def read_tensor(tensors: Mapping[str, np.ndarray], name: str, ndim: int) -> np.ndarray:
    """The stored float32 array `name`.

    Raises:
        ValueError: it is missing, not float32, or has another number of axes.
    """
    if name not in tensors:
        raise ValueError(f"tensor {name!r} is missing from the stored weights")
    array = tensors[name]
    if array.dtype != np.float32 or array.ndim != ndim:
        raise ValueError(
            f"tensor {name!r} is {array.dtype} with {array.ndim} axes, expected float32 with {ndim}"
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


def require_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse a shape that does not fit the layer's weight.

    Raises:
        ValueError: the shapes differ.
    """
    if shape != expected:
        raise ValueError(
            f"{name!r} has the shape {list(shape)}, but the layer's weight takes {list(expected)}"
        )
