"""The content hash of a data set: what a certificate names as `dataset_sha256`.

Notable: it speaks of pixels and labels in order of index and of nothing else, so a folder of
photographs, its .beton file and a copy with other page boundaries have the same hash.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.progress import ProgressBar


class ContentHash:
    """sha256 over the samples in order of index.

    The hashed bytes are `certline dataset 1\\n`, then for each sample its label (int64), height,
    width, channels (uint32), all little-endian, and its pixels [H, W, C] uint8 in C order.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"certline dataset 1\n")

    def update(self, label: int, image: npt.NDArray[np.uint8]) -> None:
        """Add the next sample; `image` is [H, W, C] uint8."""
        assert image.dtype == np.uint8 and image.ndim == 3
        self._hash.update(struct.pack("<qIII", label, *image.shape))
        self._hash.update(np.ascontiguousarray(image).data)

    def hexdigest(self) -> str:
        """The hash of the samples so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()


class Labelled(Protocol):
    """Pictures and labels in order: a source, an open .beton file."""

    labels: npt.NDArray[np.int64]

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """[H, W, C] uint8."""
        ...


def content_sha256(pictures: Labelled, title: str) -> str:
    """The content hash of a whole set, with a progress bar of that title."""
    content = ContentHash()
    with ProgressBar(title, total=len(pictures.labels), unit="img") as bar:
        for index, label in enumerate(pictures.labels.tolist()):
            content.update(label, pictures.image(index))
            bar.advance()
    return content.hexdigest()
