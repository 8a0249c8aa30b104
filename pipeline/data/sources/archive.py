"""What archives have in common: where every file lies is noted once, and each read is one seek.

Notable: reading is by position (`pread`), so threads and forked processes do not share one.
"""

from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path
from typing import Generic, TypeVar

Place = TypeVar("Place")


class Archive(Generic[Place]):
    """What all archives have in common: folders of places. See `Tree`.

    Raises:
        ValueError: the file cannot be opened.
    """

    def __init__(self, path: Path, spec: str) -> None:
        self.path, self._spec = path, spec
        self._inside: dict[str, dict[str, Place]] = {"": {}}
        self._folders: dict[str, set[str]] = {"": set()}
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ValueError(f"data {spec}: {path} cannot be opened ({error.strerror})") from None
        weakref.finalize(self, os.close, self._fd)

    def add_folder(self, folder: str) -> dict[str, Place]:
        """The places of the files directly in a folder, to add to."""
        if folder not in self._inside:
            above, _, name = folder.rpartition("/")
            self.add_folder(above)
            self._folders[above].add(name)
            self._inside[folder], self._folders[folder] = {}, set()
        return self._inside[folder]

    def add(self, file: str, place: Place) -> None:
        """Note where a file lies. Of two with one name the later counts, as when unpacking."""
        folder, _, name = file.rpartition("/")
        self.add_folder(folder)[name] = place

    def listing(self, folder: str) -> tuple[list[str], list[str]]:
        """See `Tree`."""
        shown = (
            sorted(name for name in names if not name.startswith("."))
            for names in (self._folders[folder], self._inside[folder])
        )
        return next(shown), next(shown)

    def place(self, file: str) -> Place:
        """Where a file lies.

        Raises:
            OSError: there is none.
        """
        if file in self._folders:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder, _, name = file.rpartition("/")
        try:
            return self._inside[folder][name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def size(self, file: str) -> int:
        """See `Tree`."""
        try:
            return self.length(self.place(file))
        except OSError:
            return -1

    def length(self, place: Place) -> int:
        """Bytes of the file in a place."""
        raise NotImplementedError

    def describe(self, file: str) -> str:
        """See `Tree`."""
        return f"{self.path.name}:{file}"

    def pread(self, start: int, size: int) -> bytes:
        """So many bytes of the archive.

        Raises:
            OSError: they are not there.
        """
        data = os.pread(self._fd, size, start)
        if len(data) < size:
            raise OSError(f"{self.path.name} is shorter than when it was opened")
        return data
