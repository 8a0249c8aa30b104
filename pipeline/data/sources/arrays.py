"""PictureArray: a source of which all pictures have one small size and lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.base import Pixels, array_content, check_labels, fingerprint


class PictureArray:
    """Pixels with labels. See `Source`.

    Args:
        name: of the archive or folder and the split, for messages.
        images: [N, H, W, C] uint8.
        labels: [N], any integers.

    Raises:
        ValueError: there is no picture, or labels that do not fit.
    """

    photographs = False
    passed_over: tuple[str, ...] = ()

    def __init__(
        self, name: str, images: Pixels, labels: npt.NDArray[np.generic], class_names: Sequence[str]
    ) -> None:
        if not len(images):
            raise ValueError(f"{name} holds no pictures: fetch it again")
        self.class_names = tuple(class_names)
        self.labels = check_labels(labels, len(images), len(class_names), name)
        self._name, self._images = name, images

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Pixels:
        """[H, W, C] uint8."""
        return self._images[index]

    @cached_property
    def identity(self) -> str:
        """See `Source`. The pixels themselves are hashed."""
        return fingerprint(self.class_names, self.labels, array_content(self._images))

    def describe(self, index: int) -> str:
        """File, split and number."""
        return f"{self._name}/{index}"
