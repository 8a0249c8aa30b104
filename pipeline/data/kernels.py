"""Every augmentation, as compiled kernels that the FFCV and the memory loader both call.

Notable:
- A kernel is a pure function of pixels and keys. `uniform(key, n)` is the n-th number of a sample's
  own stream; every kernel owns a range of n (table below), so adding one leaves the others' draws.
- Strict IEEE arithmetic (no fastmath) and no parallel regions: the loaders cut a batch among
  threads of their own (`workers.py`), which the kernels let run by releasing the GIL. A sample's
  pixels therefore cannot depend on the number of threads, and numba's threading layers, of which
  some can serve only one loader at a time, are never started.
- All kernels and all they call are in this one file: numba's cache on disk does not notice a change
  in another. That is why `_mix` is written again and not taken from `order.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.config import AugmentationConfig

Pixels = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.uint64]
InPlaceKernel = Callable[[Pixels, Keys], None]
"""kernel(images [n, H, W, C], keys [n]): changes the images in place."""

# The draws of a sample's stream.
_CROP_Y, _CROP_X = 0, 1  # 0..39 belong to cropping
_FLIP = 64

_kernel: Callable[[Any], Any] = njit(cache=True, nogil=True, error_model="numpy")

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ONE = np.uint64(1)


@_kernel
def _mix(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """`order.mix` for one number."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@_kernel
def uniform(key: np.uint64, n: int) -> float:
    """The n-th number of the stream of `key`: uniform on the multiples of 2^-53 in [0, 1)."""
    return np.float64(_mix(key + (np.uint64(n) + _ONE) * _GOLDEN) >> _S11) * 2.0**-53


@_kernel
def crop(picture: Pixels, key: np.uint64, padding: int, out: Pixels) -> None:
    """Cut a window of the size of `out` at a random place of the zero-padded picture.

    Every place is equally likely. A picture of the size of `out` without padding is copied as it
    is; with padding this is the usual augmentation of small images; a larger picture without
    padding is the random crop of photographs.

    Args:
        picture: [h, w, C], h and w not below S less twice the padding.
        padding: pixels of zeros around the picture.
        out: [S, S, C], overwritten.
    """
    height, width, _ = picture.shape
    rows, columns, _ = out.shape
    y0 = int(uniform(key, _CROP_Y) * (height + 2 * padding - rows + 1)) - padding
    x0 = int(uniform(key, _CROP_X) * (width + 2 * padding - columns + 1)) - padding
    left, right = max(0, -x0), min(columns, width - x0)  # the part of a row that is picture
    out[:] = 0
    for y in range(max(0, -y0), min(rows, height - y0)):
        source = picture[y0 + y, x0 + left : x0 + right].reshape(-1)
        target = out[y, left:right].reshape(-1)
        for k in range(len(target)):  # twice as fast as an assignment of slices
            target[k] = source[k]


@_kernel
def crop_stored(
    file: Pixels,
    offsets: npt.NDArray[np.int64],
    heights: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
    samples: Keys,
    keys: Keys,
    padding: int,
    out: Pixels,
) -> None:
    """`crop` of pictures that lie as raw pixels in a file.

    Args:
        file: [bytes].
        offsets, heights, widths: [N], where each picture of the data set lies, and its size.
        samples, keys: [n], which pictures to read.
        out: [n, S, S, C], overwritten.
    """
    channels = out.shape[3]
    for i in range(len(samples)):
        sample = samples[i]
        start, height, width = offsets[sample], heights[sample], widths[sample]
        pixels = file[start : start + height * width * channels]
        crop(pixels.reshape((height, width, channels)), keys[i], padding, out[i])


@_kernel
def flip(images: Pixels, keys: Keys) -> None:
    """Mirror each of `images` [n, H, W, C] left to right with probability one half, in place."""
    width, channels = images.shape[2], images.shape[3]
    for i in range(len(images)):
        if uniform(keys[i], _FLIP) < 0.5:
            for row in images[i]:
                for x in range(width // 2):
                    for c in range(channels):
                        left = row[x, c]
                        row[x, c] = row[width - 1 - x, c]
                        row[width - 1 - x, c] = left


def after_crop(augmentation: AugmentationConfig) -> tuple[InPlaceKernel, ...]:
    """The kernels that follow the crop, in order."""
    return (flip,) if augmentation.flip else ()
