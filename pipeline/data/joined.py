"""Several .beton files read as one data set: generated images come in shards.

Notable: sample ids count through the files in order of their names. The files are read by our own
threads, JPEGs by FFCV's decoder; FFCV's loader has one file.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.data.betons.files import beton_files
from pipeline.data.betons.several import SeveralFiles
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
        self._files, self._parts = SeveralFiles(parts, names), parts
        self.labels, self.class_names = self._files.labels, self._files.class_names
        self.channels = self._files.channels
        self.exact = all(part.exact for part in parts)
        self.is_raw = all(part.is_raw for part in parts)

    def picture(self, index: int) -> Pixels:
        """See `Pictures`."""
        number, place = self._files.place(index)
        return self._parts[number].decoded(place)
