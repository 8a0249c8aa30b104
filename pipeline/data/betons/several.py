"""Several .beton files as one data set: their classes agree, and sample ids count through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Part(Protocol):
    """One of the files, open in whatever way."""

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    channels: int


class SeveralFiles:
    """What they have in common, and where a sample lies.

    Args:
        parts: in order.
        names: of the parts, for messages.

    Raises:
        ValueError: their classes or channels differ, naming the first that does.
    """

    def __init__(self, parts: Sequence[Part], names: Sequence[str]) -> None:
        first = parts[0]
        for part, name in zip(parts, names, strict=True):
            if part.class_names != first.class_names or part.channels != first.channels:
                raise ValueError(
                    f"{name} has other classes or channels than {names[0]}, and they are read as "
                    "one data set: write it again from the same source"
                )
        self.class_names, self.channels = first.class_names, first.channels
        self.labels: npt.NDArray[np.int64] = np.concatenate([part.labels for part in parts])
        self._starts = np.cumsum([0, *(len(part.labels) for part in parts)])

    def place(self, index: int) -> tuple[int, int]:
        """The number of the file that a sample lies in, and its number there."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])
