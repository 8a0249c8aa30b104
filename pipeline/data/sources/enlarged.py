"""Small images treated as photographs: generated ones of 64 px, for a network of 224."""

from __future__ import annotations

from pipeline.data.sources.base import Pixels, Source


class Enlarged:
    """A source whose pictures the presets resize whatever their size is. See `Source`.

    Raises:
        ValueError: the pictures are grey, and photographs are not.
    """

    photographs = True

    def __init__(self, source: Source) -> None:
        if source.image(0).shape[2] != 3:
            raise ValueError("--resize takes RGB images, and these have one channel: leave it out")
        self.class_names, self.labels = source.class_names, source.labels
        self.passed_over = source.passed_over
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def image(self, index: int) -> Pixels:
        """[H, W, 3] uint8, as the source has it."""
        return self._source.image(index)

    @property
    def identity(self) -> str:
        """See `Source`."""
        return self._source.identity

    def describe(self, index: int) -> str:
        """As the source says."""
        return self._source.describe(index)
