"""`digits`: scikit-learn's embedded handwriting, 1797 grey images of 8×8, no download.

Notable: the split is ours, so that no release of scikit-learn can move it. In each class the images
are put in the order of sha256(index) and the first go to validation: 360 in all, shared among the
classes in proportion by largest remainders. 1437 are left for training, both in order of index.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.base import Pixels, Split, array_content, fingerprint

VALIDATION = 360


class Digits:
    """The digits as stored images: v in 0..16 becomes round(v·255/16). See `Source`."""

    photographs = False
    passed_over: tuple[str, ...] = ()
    class_names = tuple("0123456789")

    def __init__(self, split: Split) -> None:
        from sklearn.datasets import load_digits

        raw = load_digits()
        labels = raw.target.astype(np.int64)
        validation = validation_indices(labels)
        everything = np.arange(len(labels))
        chosen = validation if split == "val" else np.setdiff1d(everything, validation)
        self.labels: npt.NDArray[np.int64] = labels[chosen]
        self._images = np.round(raw.images[chosen] * 255 / 16).astype(np.uint8)[..., None]
        self._chosen, self._split = chosen, split

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Pixels:
        """[8, 8, 1] uint8."""
        return self._images[index]

    @cached_property
    def identity(self) -> str:
        """See `Source`."""
        return fingerprint(self.class_names, self.labels, array_content(self._images))

    def describe(self, index: int) -> str:
        """The image's number in scikit-learn's set."""
        return f"digits:{self._split}/{self._chosen[index]}"


def validation_indices(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices of the validation images, ascending; the rule is in the file's docstring."""
    counts = np.bincount(labels)
    quotas, remainders = np.divmod(counts * VALIDATION, len(labels))
    for label in np.argsort(-remainders, kind="stable")[: VALIDATION - quotas.sum()]:
        quotas[label] += 1
    chosen: list[int] = []
    for label, quota in enumerate(quotas):
        members = np.flatnonzero(labels == label).tolist()
        members.sort(key=lambda index: hashlib.sha256(str(index).encode()).digest())
        chosen += members[:quota]
    return np.array(sorted(chosen))
