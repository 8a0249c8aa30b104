"""Tree: files in folders, read where they lie, be it on disk or in an archive.

Notable:
- Paths in a tree are relative, with slashes; "" is its root. Hidden files and folders (.DS_Store,
  ._x.JPEG) are not in it.
- A folder is looked into only when it is asked for, and no file is asked for its size or type
  beyond what the directory says: ImageNet's 1.28 million files are listed in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

ROOT = ""
PICTURE_ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")


class Tree(Protocol):
    """Files and folders under a root."""

    path: Path
    """The folder or the archive."""

    def listing(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files directly in a folder, both sorted.

        Raises:
            ValueError: it cannot be looked into.
        """
        ...

    def read(self, file: str) -> bytes:
        """A whole file.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def size(self, file: str) -> int:
        """Bytes of a file; -1 where it cannot be looked at."""
        ...

    def describe(self, file: str) -> str:
        """For messages: "photos/train/n01/x.JPEG" or "photos.tar:train/n01/x.JPEG"."""
        ...


class FolderTree:
    """A folder on disk. See `Tree`."""

    def __init__(self, path: Path, spec: str) -> None:
        self.path, self._spec = path, spec

    def listing(self, folder: str) -> tuple[list[str], list[str]]:
        """See `Tree`. Links are followed: subsets of ImageNet are made of links to its classes."""
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(self.path / folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if entry.is_dir() else files).append(entry.name)
        except OSError as error:
            raise ValueError(
                f"data {self._spec}: {self.path / folder} cannot be looked into ({error.strerror})"
            ) from None
        return sorted(folders), sorted(files)

    def read(self, file: str) -> bytes:
        """See `Tree`."""
        return (self.path / file).read_bytes()

    def size(self, file: str) -> int:
        """See `Tree`."""
        try:
            return (self.path / file).stat().st_size
        except OSError:
            return -1

    def describe(self, file: str) -> str:
        """See `Tree`."""
        return f"{self.path.name}/{file}"


def join(folder: str, name: str) -> str:
    """The path of what lies in a folder of a tree; "" is the root, or the folder itself."""
    return f"{folder}/{name}" if folder and name else folder or name


def walk(tree: Tree, folder: str) -> Iterator[str]:
    """Every picture below a folder, in the order of the paths' parts.

    A folder that is called like a picture is given too, and what is in it: reading it fails, and so
    it is named like every unreadable picture.
    """
    folders, files = tree.listing(folder)
    inside = set(folders)
    for name in sorted(folders + files):
        path = join(folder, name)
        if name not in inside:
            yield path
            continue
        if name.lower().endswith(PICTURE_ENDINGS):
            yield path
        yield from walk(tree, path)


def has_file(tree: Tree, file: str) -> bool:
    """Whether the tree has a file of this path."""
    folder, _, name = file.rpartition("/")
    return has_folder(tree, folder) and name in tree.listing(folder)[1]


def has_folder(tree: Tree, folder: str) -> bool:
    """Whether the tree has a folder of this path."""
    at = ROOT
    for name in folder.split("/") if folder else ():
        if name not in tree.listing(at)[0]:
            return False
        at = join(at, name)
    return True
