"""`beton:PATH`: a .beton file, a folder or a pattern of them, as a source to be written again.

Generated images are resized in this way once, when they are written, and not in every epoch.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.data.betons.files import beton_files
from pipeline.data.betons.format import BetonFile, read_beton
from pipeline.data.betons.several import SeveralFiles
from pipeline.data.sources.base import Pixels, Split, fingerprint
from pipeline.data.sources.decode import SMALL


class BetonSource:
    """Pictures that are stored as pixels. See `Source`.

    Raises:
        ValueError: no such file, JPEGs among them, or files of different classes or channels.
    """

    passed_over: tuple[str, ...] = ()

    def __init__(self, path: Path, split: Split) -> None:
        self._files = [read_beton(Path(file)) for file in beton_files(str(path)) or [str(path)]]
        for file in self._files:
            if not file.is_exact:
                raise ValueError(
                    f"{file.path} holds JPEG images, which lose once more when they are written "
                    "again: write from what that file was written from"
                )
        self._several = SeveralFiles(self._files, [str(file.path) for file in self._files])
        self.class_names, self.labels = self._several.class_names, self._several.labels
        sides = np.concatenate(
            [part for file in self._files for part in (file.heights, file.widths)]
        )
        varied = bool((sides != sides[0]).any() or sides[0] > SMALL)
        self.photographs = varied and self._several.channels == 3

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Pixels:
        """[H, W, C] uint8."""
        file, number = self._place(index)
        return file.image(number)

    @cached_property
    def identity(self) -> str:
        """See `Source`. The pixels themselves are hashed."""
        contents = (self.image(index).tobytes() for index in range(len(self)))
        return fingerprint(self.class_names, self.labels, contents)

    def describe(self, index: int) -> str:
        """File and number."""
        file, number = self._place(index)
        return f"{file.path.name}/{number}"

    def _place(self, index: int) -> tuple[BetonFile, int]:
        number, place = self._several.place(index)
        return self._files[number], place
