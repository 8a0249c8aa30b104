"""Drawn samples as a source, so that they are written as every data set is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.base import Pixels
from pipeline.diffusion.store import DrawnBatches


class DrawnSource:
    """The chosen samples, in order of their index. See `pipeline.data.sources.Source`.

    Args:
        chosen: [n] indices of samples in `store`.
        settings: all that their pixels depend on.
    """

    photographs = False
    passed_over: tuple[str, ...] = ()

    def __init__(
        self,
        store: DrawnBatches,
        batch_size: int,
        chosen: npt.NDArray[np.int64],
        class_names: Sequence[str],
        settings: dict[str, Any],
    ) -> None:
        self.class_names = tuple(class_names)
        self.labels: npt.NDArray[np.int64] = chosen % len(class_names)
        self._store, self._batch_size, self._chosen = store, batch_size, chosen
        self._settings = settings

    def __len__(self) -> int:
        return len(self._chosen)

    def image(self, index: int) -> Pixels:
        """[H, W, C] uint8."""
        return self._store.image(int(self._chosen[index]), self._batch_size)

    @property
    def identity(self) -> str:
        """sha256 of the settings and of which samples were chosen."""
        sha256 = hashlib.sha256(b"certline drawn samples 1\n")
        sha256.update(json.dumps(self._settings, sort_keys=True).encode())
        sha256.update(self._chosen.astype("<i8").tobytes())
        return sha256.hexdigest()

    def describe(self, index: int) -> str:
        """Class and number."""
        number, label = divmod(int(self._chosen[index]), len(self.class_names))
        return f"sample {number} of class {self.class_names[label]}"
