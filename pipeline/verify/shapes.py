"""Layers without weights that move, compare or average numbers: what they take and what they do.

Notable: each has the Lipschitz constant 1, and all but the average round nothing.
- pad_channels appends zero channels, pixel_unshuffle makes channels of s×s pixels, swap_tokens has
  channels and positions change places, flatten makes a vector: isometries.
- max_pool takes the largest of every q×q window. The windows are disjoint, and a maximum moves no
  further than the vector of its inputs.
- average_pool divides the sum of a window by q: a row of q² entries 1/q has norm 1, and rows of
  disjoint windows are orthogonal.
- group_sort sorts g consecutive channels; sorting moves no further than its inputs.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.verify.outward import Float64
from pipeline.verify.refusal import Refusal, require
from pipeline.verify.strict_json import Record

SIZES = {
    "pad_channels": "channels",
    "pixel_unshuffle": "factor",
    "swap_tokens": "height",
    "max_pool": "size",
    "average_pool": "size",
    "group_sort": "size",
}
"""The one attribute of each kind that has one."""
LARGEST = 2**16


def read_size(kind: str, attributes: Record) -> int:
    """The attribute of a layer without weights; 0 for a kind that has none."""
    key = SIZES.get(kind)
    attributes.only(set() if key is None else {key})
    return 0 if key is None else attributes.count(key, 1, LARGEST)


def output_shape(kind: str, shape: tuple[int, ...], size: int, where: str) -> tuple[int, ...]:
    """Shape of one output.

    Raises:
        Refusal: the layer cannot take inputs of `shape`, or is of a kind that is not known.
    """
    misfit = f"{where} does not fit inputs of shape {list(shape)}"
    if kind == "minmax":
        require(shape[0] % 2 == 0, f"{where} pairs an odd number of channels")
        return shape
    if kind == "group_sort":
        require(shape[0] % size == 0, misfit)
        return shape
    if kind == "flatten":
        return (math.prod(shape),)
    if kind == "pad_channels":
        require(len(shape) == 3 and shape[0] <= size, misfit)
        return (size, *shape[1:])
    if kind == "swap_tokens":
        require(len(shape) == 3 and shape[0] % size == 0, misfit)
        return (shape[1] * shape[2], size, shape[0] // size)
    if kind in ("max_pool", "average_pool", "pixel_unshuffle"):
        require(len(shape) == 3 and shape[1] % size == 0 and shape[2] % size == 0, misfit)
        channels = shape[0] * size**2 if kind == "pixel_unshuffle" else shape[0]
        return (channels, shape[1] // size, shape[2] // size)
    raise Refusal(f"{where} is of a kind that is not known here")


def evaluate(kind: str, size: int, x: Float64) -> Float64 | None:
    """[B, ...] -> [B, ...]; None for kinds that are computed elsewhere."""
    if kind == "flatten":
        return x.reshape(len(x), -1)
    if kind == "minmax":
        half = x.shape[1] // 2
        pair = x[:, :half], x[:, half:]
        return np.concatenate([np.maximum(*pair), np.minimum(*pair)], axis=1)
    if kind == "group_sort":
        groups = x.reshape(len(x), x.shape[1] // size, size, *x.shape[2:])
        return np.sort(groups, axis=2).reshape(x.shape)
    if kind == "pad_channels":
        zeros = np.zeros((len(x), size - x.shape[1], *x.shape[2:]))
        return np.concatenate([x, zeros], axis=1)
    if kind == "swap_tokens":
        tokens = x.reshape(len(x), x.shape[1], -1)
        return np.moveaxis(tokens, 1, 2).reshape(len(x), -1, size, x.shape[1] // size)
    if kind not in ("max_pool", "average_pool", "pixel_unshuffle"):
        return None
    batch, channels, high, wide = x.shape
    windows = x.reshape(batch, channels, high // size, size, wide // size, size)
    if kind == "max_pool":
        return windows.max(axis=(3, 5))
    if kind == "average_pool":
        return windows.sum(axis=(3, 5)) / size
    moved = windows.transpose(0, 1, 3, 5, 2, 4)  # [B, C, s, s, H/s, W/s]
    return moved.reshape(batch, channels * size**2, high // size, wide // size)
