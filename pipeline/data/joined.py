"""Several .beton files read as one data set: generated images come in shards.

Notable: sample ids count through the files in order of their names. The files are read by our own
threads, JPEGs by FFCV's decoder; FFCV's loader has one file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.data.betons.files import beton_files
from pipeline.data.pictures import BetonPictures, Pixels


def listed_files(path: str | list[str]) -> tuple[str, ...]:
    """The data sets that `data.generated.path` names, one or several .beton files.

    Args:
        path: a dataset spec, a list of .beton files, a folder of them, or a pattern.

    Raises:
        ValueError: no file is there, or one of several is no .beton file.
    """
    if isinstance(path, str):
        try:
            return tuple(beton_files(path) or [path])
        except ValueError as error:
            raise ValueError(f"data.generated.path {error}") from None
    for each in path:
        if len(path) > 1 and not each.endswith(".beton"):
            raise ValueError(
                f"data.generated.path lists {each}, and only .beton files can be read together: "
                f"write one with tools/write_beton.py --source {each}"
            )
        if path.count(each) > 1:
            raise ValueError(f"data.generated.path lists {each} twice: remove one")
    return tuple(path)


class JoinedPictures:
    """`Pictures` of several files.

    Args:
        parts: of the files, in order.
        names: of the files, for messages.

    Raises:
        ValueError: their classes or channels differ, naming the first that does.
    """

    def __init__(self, parts: Sequence[BetonPictures], names: Sequence[str]) -> None:
        first = parts[0]
        for part, name in zip(parts, names, strict=True):
            if part.class_names != first.class_names or part.channels != first.channels:
                raise ValueError(
                    f"{name} has other classes or channels than {names[0]}, and they are read as "
                    "one data set: write it again from the same generator"
                )
        self.labels: npt.NDArray[np.int64] = np.concatenate([part.labels for part in parts])
        self.class_names, self.channels = first.class_names, first.channels
        self.exact = all(part.exact for part in parts)
        self.is_raw = all(part.is_raw for part in parts)
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part.labels) for part in parts)])

    def picture(self, index: int) -> Pixels:
        """See `Pictures`."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[number].decoded(index - int(self._starts[number]))
