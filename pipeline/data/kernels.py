"""Every augmentation, as compiled kernels that the FFCV and the memory loader both call.

Notable:
- A kernel is a pure function of pixels and keys. `uniform(key, n)` is the n-th number of a sample's
  own stream; every kernel owns a range of n (table below), so switching one on or adding another
  leaves the others' draws. Which of them run, and in which order, says `augmentation.py`.
- Resizing and RandAugment repeat PIL's arithmetic, equal to the bit: what torchvision's
  RandomResizedCrop and RandAugment do to a PIL picture, given the same draws.
- Strict IEEE arithmetic (no fastmath) and no parallel regions: the loaders cut a batch among
  threads of their own (`workers.py`), which the kernels let run by releasing the GIL. A sample's
  pixels therefore cannot depend on the number of threads, and numba's threading layers, of which
  some can serve only one loader at a time, are never started.
- All kernels and all they call are in this one file: numba's cache on disk does not notice a change
  in another. That is why `_mix` is written again and not taken from `order.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Pixels = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.uint64]

# The draws of a sample's stream: the first n of each kernel's range.
_CROP = 0  # y, x
_RESIZED_CROP = 8  # ten tries of (area, aspect ratio, y, x): 8..47
_FLIP = 64
_CUTOUT = 72  # y, x
_RANDAUGMENT = 128  # (operation, sign) for each of as many as are asked for: the last range

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


# ---------------------------------------------------------------- from a picture to an image


class Box(NamedTuple):
    """Of which size `resized_crop` takes parts of a picture."""

    scale: tuple[float, float]
    """Least and greatest share of the picture's area."""
    ratio: tuple[float, float]
    """Least and greatest width over height."""


@_kernel
def crop(picture: Pixels, key: np.uint64, padding: int, out: Pixels) -> None:
    """Cut a window of the size of `out` at a random place of the zero-padded picture.

    Every place is equally likely. With padding this is the usual augmentation of small images;
    without it a picture of the size of `out` is copied, and of a photograph a part is taken.

    Args:
        picture: [h, w, C], h and w not below S less twice the padding.
        padding: pixels of zeros around the picture.
        out: [S, S, C], overwritten.
    """
    height, width, _ = picture.shape
    rows, columns, _ = out.shape
    y0 = int(uniform(key, _CROP) * (height + 2 * padding - rows + 1)) - padding
    x0 = int(uniform(key, _CROP + 1) * (width + 2 * padding - columns + 1)) - padding
    left, right = max(0, -x0), min(columns, width - x0)  # the part of a row that is picture
    out[:] = 0
    for y in range(max(0, -y0), min(rows, height - y0)):
        source = picture[y0 + y, x0 + left : x0 + right].reshape(-1)
        target = out[y, left:right].reshape(-1)
        for k in range(len(target)):  # twice as fast as an assignment of slices
            target[k] = source[k]


_BITS = 22  # of the fraction of PIL's weights: 32 less 8 for a pixel and 2 for the sum
_HALF = np.int32(1 << (_BITS - 1))


@_kernel
def _weights(length, target, first, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """PIL's triangle filter for places first .. first + count - 1 of a side resized to `target`.

    Returns:
        [count, 2], where the filter begins and how long it is; [count, taps], its weights · 2^22.
    """
    scale = length / target
    support = max(scale, 1.0)  # wider than one pixel when scaling down: antialias
    spans = np.empty((count, 2), np.int64)
    weights = np.zeros((count, math.ceil(support) * 2 + 1), np.int32)
    exact = np.empty(weights.shape[1], np.float64)
    for i in range(count):
        center = (first + i + 0.5) * scale
        begin = max(0, int(center - support + 0.5))
        taps = min(length, int(center + support + 0.5)) - begin
        total = 0.0
        for k in range(taps):
            exact[k] = max(0.0, 1.0 - abs((k + begin - center + 0.5) * (1.0 / support)))
            total += exact[k]
        for k in range(taps):
            weights[i, k] = int(0.5 + exact[k] / total * (1 << _BITS))
        spans[i, 0], spans[i, 1] = begin, taps
    return spans, weights


@_kernel
def _across(source, top, left, spans, weights, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Resize the rows of `source` [h, w, C] from `top` on, with the filters of `_weights`."""
    rows, columns, channels = out.shape
    for y in range(rows):
        line, target = source[top + y].reshape(-1), out[y].reshape(-1)
        for x in range(columns):
            begin, taps, filt = (left + spans[x, 0]) * channels, spans[x, 1], weights[x]
            if channels == 3:
                red, green, blue = _HALF, _HALF, _HALF
                for k in range(taps):
                    at = begin + 3 * k
                    red = np.int32(red + filt[k] * line[at])
                    green = np.int32(green + filt[k] * line[at + 1])
                    blue = np.int32(blue + filt[k] * line[at + 2])
                target[3 * x] = red >> _BITS
                target[3 * x + 1] = green >> _BITS
                target[3 * x + 2] = blue >> _BITS
            else:
                value = _HALF
                for k in range(taps):
                    value = np.int32(value + filt[k] * line[begin + k])
                target[x] = value >> _BITS


@_kernel
def _down(source, top, left, spans, weights, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Resize the columns of `source` [h, w, C] from `left` on, with the filters of `_weights`."""
    rows, columns, channels = out.shape
    begin, length = left * channels, columns * channels
    sums = np.empty(length, np.int32)
    for y in range(rows):
        sums[:] = _HALF
        for k in range(spans[y, 1]):
            weight = weights[y, k]
            line = source[top + spans[y, 0] + k].reshape(-1)[begin : begin + length]
            for i in range(length):
                sums[i] += weight * line[i]
        target = out[y].reshape(-1)
        for i in range(length):
            target[i] = sums[i] >> _BITS


@_kernel
def _resample(  # type: ignore[no-untyped-def]  # noqa: ANN202
    picture, y0, x0, height, width, target_h, target_w, top, left, out  # noqa: ANN001
):  # fmt: skip
    """`resize_window` of the part [y0 : y0 + height, x0 : x0 + width] of a picture."""
    rows, columns, channels = out.shape
    across, down = _weights(width, target_w, left, columns), _weights(height, target_h, top, rows)
    if height > target_h and height - target_h > 2 * (width - target_w):
        first, last = across[0][0, 0], across[0][columns - 1].sum()
        middle = np.empty((rows, last - first, channels), np.uint8)
        _down(picture, y0, x0 + first, *down, middle)
        _across(middle, 0, -first, *across, out)
    else:
        first, last = down[0][0, 0], down[0][rows - 1].sum()
        middle = np.empty((last - first, columns, channels), np.uint8)
        _across(picture, y0 + first, x0, *across, middle)
        _down(middle, -first, 0, *down, out)


@_kernel
def resize_window(
    picture: Pixels, target_h: int, target_w: int, top: int, left: int, out: Pixels
) -> None:
    """A window of a resized picture, without computing the rest of it.

    Equal to the bit to `Image.resize((target_w, target_h), BILINEAR)` of PIL (triangle filter with
    antialias, weights of 22 bits, 8 bits between the passes), cropped to the window. As of Pillow
    13 the vertical pass is the first one where the height shrinks by more than twice as many pixels
    as the width; up to Pillow 12 it never was, which can differ by one grey level.

    Args:
        picture: [h, w, C], C 1 or 3, as everywhere here.
        target_h, target_w: size of the whole resized picture.
        top, left: the window's corner in it.
        out: [rows, columns, C], the window, overwritten; inside the resized picture.
    """
    height, width, _ = picture.shape
    _resample(picture, 0, 0, height, width, target_h, target_w, top, left, out)


@_kernel
def random_box(height: int, width: int, key: np.uint64, box: Box) -> tuple[int, int, int, int]:
    """The (y, x, h, w) that `torchvision.transforms.RandomResizedCrop` cuts out of a picture.

    Ten tries for a box of a random share of the area and a random aspect ratio (uniform in its
    logarithm) that fits into the picture, at a random place; then the largest one in the middle.
    """
    scale, ratio = box.scale, box.ratio
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for n in range(_RESIZED_CROP, _RESIZED_CROP + 40, 4):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform(key, n))
        aspect = math.exp(low + (high - low) * uniform(key, n + 1))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            y = int(uniform(key, n + 2) * (height - h + 1))
            return y, int(uniform(key, n + 3) * (width - w + 1)), h, w
    h, w = height, width
    if width < ratio[0] * height:
        h = max(1, round(width / ratio[0]))
    elif width > ratio[1] * height:
        w = max(1, round(height * ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


@_kernel
def resized_crop(picture: Pixels, key: np.uint64, box: Box, out: Pixels) -> None:
    """torchvision's RandomResizedCrop: `random_box`, resized as PIL does it.

    Args:
        picture: [h, w, C] of any size.
        out: [S, S, C], overwritten.
    """
    y, x, h, w = random_box(picture.shape[0], picture.shape[1], key, box)
    _resample(picture, y, x, h, w, out.shape[0], out.shape[1], 0, 0, out)


@_kernel
def cut(picture: Pixels, key: np.uint64, padding: int, box: Box | None, out: Pixels) -> None:
    """`crop` or, with a box, `resized_crop`; numba compiles only the one that is asked for."""
    if box is None:
        crop(picture, key, padding, out)
    else:
        resized_crop(picture, key, box, out)


@_kernel
def cut_stored(
    file: Pixels,
    offsets: npt.NDArray[np.int64],
    heights: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
    samples: Keys,
    keys: Keys,
    padding: int,
    box: Box | None,
    out: Pixels,
) -> None:
    """`cut` of pictures that lie as raw pixels in a file.

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
        cut(pixels.reshape((height, width, channels)), keys[i], padding, box, out[i])


# ---------------------------------------------------------------- of images, in place


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


@_kernel
def cutout(images: Pixels, keys: Keys, side: int) -> None:
    """Cutout (DeVries and Taylor, 2017): a black square around a random pixel of each image.

    Args:
        images: [n, H, W, C], changed in place.
        side: of the square, in pixels; any pixel can be its centre, and the border clips it.
    """
    _, height, width, _ = images.shape
    for i in range(len(images)):
        y = int(uniform(keys[i], _CUTOUT) * height) - side // 2
        x = int(uniform(keys[i], _CUTOUT + 1) * width) - side // 2
        images[i, max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = 0


# RandAugment's operations by number: torchvision's order, and that of `randaugment.OPERATIONS`.
_SHEAR_X, _ROTATE = 1, 5  # and between them the other affine ones
_BRIGHTNESS, _COLOR, _CONTRAST, _SHARPNESS = 6, 7, 8, 9
_POSTERIZE, _SOLARIZE, _AUTOCONTRAST, _EQUALIZE = 10, 11, 12, 13


@_kernel
def _affine(image, matrix):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """PIL's `transform(AFFINE, NEAREST)` with fill 0; `matrix` [6] in 16.16 fixed point."""
    height, width, channels = image.shape
    source, target = image.copy().reshape(-1), image.reshape(-1)
    target[:] = 0
    for y in range(height):
        u, v = matrix[2] + y * matrix[1], matrix[5] + y * matrix[4]
        for x in range(width):
            column, row = u >> 16, v >> 16
            if 0 <= column < width and 0 <= row < height:
                to, at = (y * width + x) * channels, (row * width + column) * channels
                target[to] = source[at]
                if channels == 3:
                    target[to + 1] = source[at + 1]
                    target[to + 2] = source[at + 2]
            u += matrix[0]
            v += matrix[3]


@_kernel
def _blend(low, high, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """PIL's `blend` of two pixels: float32, clipped, truncated."""
    value = np.float32(low) + factor * np.float32(np.int32(high) - np.int32(low))
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)))


@_kernel
def _grey(red, green, blue):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """PIL's `convert("L")` of a pixel: ITU-R 601-2 in 16.16 fixed point."""
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


@_kernel
def _saturate(image, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """`ImageEnhance.Color`: away from, or towards, the grey picture."""
    if image.shape[2] == 3:  # a grey picture is its own grey picture
        values = image.reshape(-1)
        for i in range(0, len(values), 3):
            red, green, blue = values[i], values[i + 1], values[i + 2]
            grey = _grey(red, green, blue)
            values[i] = _blend(grey, red, factor)
            values[i + 1] = _blend(grey, green, factor)
            values[i + 2] = _blend(grey, blue, factor)


@_kernel
def _sharpen(image, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """`ImageEnhance.Sharpness`: away from, or towards, the picture smoothed by (1 1 1 1 5 1 1 1 1).

    PIL sums in float32 and rounds; a sum of integers over 13 is never near a half, so that integers
    give the same. The border is left as it is.
    """
    height, width, channels = image.shape
    target = image.reshape(height, width * channels)
    source = target.copy()
    sums = np.empty(width * channels, np.int32)  # of three pixels in a column
    left, middle, right = sums[: -2 * channels], sums[channels:-channels], sums[2 * channels :]
    for y in range(1, height - 1):
        above, here, below = source[y - 1], source[y], source[y + 1]
        for i in range(len(sums)):
            sums[i] = np.int32(above[i]) + here[i] + below[i]
        inner, changed = here[channels:-channels], target[y, channels:-channels]
        for i in range(len(inner)):
            total = left[i] + middle[i] + right[i] + 4 * np.int32(inner[i])
            changed[i] = _blend(np.int32(2 * total + 13) // np.int32(26), inner[i], factor)


@_kernel
def _stretch(counts, table):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """`ImageOps.autocontrast` as a table [256], from a histogram [256]."""
    used = np.nonzero(counts)[0]
    low, high = used[0], used[-1]
    if high > low:
        scale = 255.0 / (high - low)
        for value in range(256):
            table[value] = int(min(max(value * scale + -low * scale, 0.0), 255.0))


@_kernel
def _flatten(counts, table):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """`ImageOps.equalize` as a table [256], from a histogram [256]."""
    step = (counts.sum() - counts[np.nonzero(counts)[0][-1]]) // 255
    if step > 0:
        passed = step // 2
        for value in range(256):
            table[value] = min(passed // step, 255)
            passed += counts[value]


@_kernel
def _by_table(image, operation, amount):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The operations that replace each value by another, one table [256] a channel."""
    channels, values = image.shape[2], image.reshape(-1)
    tables = np.empty((channels, 256), np.uint8)
    tables[:] = np.arange(256)
    low = 0  # of the blend: black, or for contrast the mean grey
    if operation == _CONTRAST:
        total = 0
        for i in range(0, len(values), channels):
            one = values[i]
            total += _grey(one, values[i + 1], values[i + 2]) if channels == 3 else one
        low = int(total / (len(values) // channels) + 0.5)
    if operation in (_AUTOCONTRAST, _EQUALIZE):
        counts = np.zeros((channels, 256), np.int64)
        for c in range(channels):
            for i in range(c, len(values), channels):
                counts[c, values[i]] += 1
            if operation == _AUTOCONTRAST:
                _stretch(counts[c], tables[c])
            else:
                _flatten(counts[c], tables[c])
    else:
        for value in range(256):
            if operation == _POSTERIZE:
                tables[:, value] = value & int(amount)
            elif operation == _SOLARIZE:
                tables[:, value] = value if value < amount else 255 - value
            else:
                tables[:, value] = _blend(low, value, np.float32(amount))
    for c in range(channels):
        table = tables[c]
        for i in range(c, len(values), channels):
            values[i] = table[values[i]]


@_kernel
def operate(image: Pixels, operation: int, matrix: npt.NDArray[np.int64], amount: float) -> None:
    """One of RandAugment's operations on an image [H, W, C], in place.

    Args:
        operation: a position in `randaugment.OPERATIONS`.
        matrix, amount: what `randaugment_table` says of it.
    """
    if _SHEAR_X <= operation <= _ROTATE:
        _affine(image, matrix)
    elif operation == _COLOR:
        _saturate(image, np.float32(amount))
    elif operation == _SHARPNESS:
        _sharpen(image, np.float32(amount))
    elif operation >= _BRIGHTNESS:
        _by_table(image, operation, amount)


@_kernel
def randaugment(
    images: Pixels,
    keys: Keys,
    operations: int,
    matrices: npt.NDArray[np.int64],
    amounts: npt.NDArray[np.float64],
) -> None:
    """RandAugment (Cubuk et al., 2020) as `torchvision.transforms.RandAugment` has it.

    All 14 operations with torchvision's magnitudes, nearest pixel, fill 0. Tested to the bit
    against torchvision's steps written out in PIL: each operation, both signs, every magnitude,
    RGB and one channel, sides from 1 to 224 pixels, photographs; and chains of several.

    Args:
        images: [n, H, W, C], C 1 or 3, changed in place.
        operations: how many follow one another on an image; each is any of the 14, equally likely.
        matrices, amounts: `randaugment_table`.
    """
    for i in range(len(images)):
        for n in range(_RANDAUGMENT, _RANDAUGMENT + 2 * operations, 2):
            operation = int(uniform(keys[i], n) * len(amounts))
            sign = 1 if uniform(keys[i], n + 1) < 0.5 else 0
            operate(images[i], operation, matrices[operation, sign], amounts[operation, sign])
