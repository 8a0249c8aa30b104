"""Drawn batches on disk until the file of all samples is written: what a killed draw goes on from.

Notable:
- `OUT.drawn/` has one .npy a batch, [B, H, W, C] uint8, and with a filter one of [B] confidences.
  Each is written beside and renamed; the confidences come first, so a batch with its images is
  whole.
- `settings.json` says what all pixels depend on. Batches of other settings are never mixed in:
  they are refused, or cleared where that is asked for. More samples with the same settings go on.
"""

from __future__ import annotations

import io
import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.certify.block_store import write_atomically

KEPT_BATCHES = 64
"""In memory, for who reads samples in order; at most so many batches."""


class DrawnBatches:
    """The folder of one draw.

    Args:
        out: the file that will hold the samples.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".drawn")
        self._cached = lru_cache(KEPT_BATCHES)(self.images)

    def claim(self, settings: dict[str, Any], force: bool) -> None:
        """Make it the folder of a draw. Called by rank 0.

        Raises:
            ValueError: it holds batches of other settings, naming the first that differs.
        """
        path = self.folder / "settings.json"
        if path.is_file():
            before = json.loads(path.read_text())
            differ = [
                f"{key}: {before.get(key)} there, {settings.get(key)} here"
                for key in [*settings, *before]
                if before.get(key) != settings.get(key)
            ]
            if not differ:
                return
            if not force:
                raise ValueError(
                    f"{self.folder} holds unfinished samples of other settings ({differ[0]}): set "
                    "it back to go on, or give --force to draw anew"
                )
            self.clear()
        write_atomically(path, json.dumps(settings, indent=1) + "\n")

    def missing(self, batches: int) -> list[int]:
        """Which of the first so many batches are not there."""
        there = {path.name for path in self.folder.glob("*.images.npy")}
        return [number for number in range(batches) if self._images(number).name not in there]

    def write(
        self,
        number: int,
        images: npt.NDArray[np.uint8],
        confidences: npt.NDArray[np.float32] | None,
    ) -> None:
        """Store a batch, [B, H, W, C] and [B]."""
        if confidences is not None:
            write_atomically(self._confidences(number), _npy(confidences))
        write_atomically(self._images(number), _npy(images))

    def images(self, number: int) -> npt.NDArray[np.uint8]:
        """Of a batch that is there, [B, H, W, C]."""
        images: npt.NDArray[np.uint8] = np.load(self._images(number), allow_pickle=False)
        return images

    def confidences(self, number: int) -> npt.NDArray[np.float32]:
        """Of a batch that was drawn with a filter, [B]."""
        found: npt.NDArray[np.float32] = np.load(self._confidences(number), allow_pickle=False)
        return found

    def image(self, index: int, batch_size: int) -> npt.NDArray[np.uint8]:
        """One sample, [H, W, C]; from any thread."""
        number, place = divmod(index, batch_size)
        picture: npt.NDArray[np.uint8] = self._cached(number)[place]
        return picture

    def clear(self) -> None:
        """Remove the folder: the samples are in their file, or unwanted."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _images(self, number: int) -> Path:
        return self.folder / f"{number:08d}.images.npy"

    def _confidences(self, number: int) -> Path:
        return self.folder / f"{number:08d}.confidences.npy"


def _npy(array: npt.NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()
