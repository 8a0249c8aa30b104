"""Source: a labelled set of pictures as people have it, read picture by picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Split = Literal["train", "val"]


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


def decode_rgb(data: bytes, name: str) -> Pixels:
    """Decode a picture file to [H, W, 3]; grey, palette and CMYK pictures become RGB.

    Raises:
        ValueError: it is damaged or no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"picture {name} cannot be read ({reason}): mend or remove it") from None


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
        ValueError: it is not.
    """
    if not path.exists():
        raise ValueError(f"data {spec!r}: {path} does not exist")
    return path
