"""Source: a labelled set of pictures as people have it, read picture by picture."""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Split = Literal["train", "val"]

SMALL = 64
"""Longest side of pictures that are data of one size rather than photographs."""
LOOKED_AT = 64
"""Pictures whose size decides that."""


class Source(Protocol):
    """Pictures and labels; the index is the sample id."""

    class_names: tuple[str, ...]
    """Labels are positions in this."""
    labels: npt.NDArray[np.int64]
    """[N]."""
    photographs: bool
    """Sizes vary, and presets resize them."""
    passed_over: tuple[str, ...]
    """Files that lie where classes were expected and were not read."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Pixels:
        """The picture as it is, [H, W, C] uint8; C = 1 only where the whole set is grey.

        Raises:
            ValueError: it cannot be read, naming it.
        """
        ...

    def describe(self, index: int) -> str:
        """Which picture that is, for messages: "photos.tar:train/n01/x.JPEG"."""
        ...


def decode_rgb(data: bytes, name: str, side: int | None = None) -> Pixels:
    """Decode a picture file to [H, W, 3]; grey, palette and CMYK pictures become RGB.

    Args:
        data: the file.
        name: for messages.
        side: the height and width that it must have (`small_side`).

    Raises:
        ValueError: it is damaged, no picture, of more than 8 bits, or not of that size.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode.startswith(("I", "F")):  # PIL would clip at 255, silently
                raise ValueError(f"mode {picture.mode}, more than 8 bits a channel")
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"picture {name} cannot be read ({reason}): mend or remove it") from None
    if side is not None and pixels.shape[:2] != (side, side):
        height, width, _ = pixels.shape
        raise ValueError(
            f"picture {name} has {height}x{width} pixels, the others {side}x{side}, and such small "
            "pictures are not resized: mend or remove it"
        )
    return pixels


def small_side(data: Callable[[int], bytes], count: int) -> int | None:
    """The side of pictures that are all square, of one size and at most 64 px; None otherwise.

    Such sets (CIFAR, Tiny-ImageNet) stay untouched; all others are photographs. The headers of a
    few pictures decide, and `decode_rgb` holds the rest to it.

    Args:
        data: gives picture file `index`.
        count: how many there are.
    """
    sizes: set[tuple[int, int]] = set()
    for index in sorted({i * count // LOOKED_AT for i in range(LOOKED_AT)}):
        try:
            with Image.open(io.BytesIO(data(index))) as picture:
                sizes.add(picture.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # named when it is its turn
        if len(sizes) > 1 or picture.width != picture.height or picture.width > SMALL:
            return None
    return sizes.pop()[0] if sizes else None


def check_labels(
    labels: npt.NDArray[np.generic], count: int, num_classes: int, where: str
) -> npt.NDArray[np.int64]:
    """Labels as [N] int64.

    Raises:
        ValueError: not `count` integers from 0 to `num_classes` - 1.
    """
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: expected {count} integer labels, found {labels.dtype} of shape "
            f"{list(labels.shape)}"
        )
    wide = labels.astype(np.int64)
    bad = np.flatnonzero((wide < 0) | (wide >= num_classes))
    if len(bad):
        raise ValueError(
            f"{where}: label {wide[bad[0]]} of sample {bad[0]} is out of range: there are "
            f"{num_classes} classes, 0 to {num_classes - 1}"
        )
    return wide


def existing(path: Path, spec: str) -> Path:
    """`path` if it is there.

    Raises:
        ValueError: it is not, with the nearest name beside it.
    """
    if not path.exists():
        beside = [other.name for other in path.parent.glob("*")]
        near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
        mend = f": did you mean {path.with_name(near[0])}?" if near else ""
        raise ValueError(f"data {spec}: {path} does not exist{mend}")
    return path
