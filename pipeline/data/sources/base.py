"""Source: a labelled set of pictures as people have it, read picture by picture."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Split = Literal["train", "val"]


class UnreadablePicture(ValueError):
    """One picture cannot be read, and the others may well be: what `--on-error skip` skips."""

    def __init__(self, picture: str, reason: str, mend: str = "mend or remove it") -> None:
        super().__init__(f"picture {picture} cannot be read ({reason}): {mend}")
        self.picture = picture
        """As `Source.describe` names it."""
        self.reason = reason


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
            UnreadablePicture: it cannot be read, naming it.
        """
        ...

    @property
    def identity(self) -> str:
        """sha256 of the listing (`fingerprint`): whether this is still the same source."""
        ...

    def describe(self, index: int) -> str:
        """Which picture that is, for messages: "photos.tar:train/n01/x.JPEG"."""
        ...


def fingerprint(
    class_names: Sequence[str], labels: npt.NDArray[np.int64], contents: Iterable[bytes]
) -> str:
    """sha256 over class names, labels [N] and what tells the pictures from others.

    Args:
        contents: name and size of every file in order (`named_size`), or the pixels themselves.
    """
    sha256 = hashlib.sha256(b"certline source 1\n")
    sha256.update(json.dumps(list(class_names)).encode() + b"\n")
    sha256.update(labels.astype("<i8").tobytes())
    for content in contents:
        sha256.update(content)
    return sha256.hexdigest()


def named_size(name: str, size: int) -> bytes:
    """A file in a fingerprint."""
    return f"{name}\0{size}\n".encode("utf-8", "surrogateescape")


def array_content(array: npt.NDArray[np.generic]) -> Iterable[bytes]:
    """An array in a fingerprint: type and shape, then everything in it."""
    yield f"{array.dtype.str} {array.shape}\n".encode()
    yield np.ascontiguousarray(array).tobytes()


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
