"""`folder:PATH`: a folder, or a tar read in place, of class folders with one file a picture.

Notable:
- If PATH holds a folder named like the split (`train`, `val`) with folders in it, the classes are
  in there; otherwise they are PATH's own folders. One lone folder at the top, as archives have it,
  is stepped into. Labels are the classes in sorted order, as everywhere for ImageNet.
- A split that is missing beside the other one is an error, and so are classes that differ between
  the two: a class folder more or less would shift every label after it.
- Other files where classes are expected are passed over and named; inside a class every file is a
  picture, however deep it lies, except hidden ones.
- Pictures that are all square, of one size and at most 64 px are data of that size and stay
  untouched; all others are photographs.
- A tar is never unpacked: where each member lies is noted once, and every read opens the file anew,
  so that threads do not share a position.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.base import (
    Pixels,
    Split,
    UnreadablePicture,
    decode_rgb,
    existing,
    fingerprint,
    named_size,
    small_side,
)

TOP = ""
"""The root of a tree; every other path in it is relative, with slashes."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Tree:
    """Files and folders under a root, and how to read a file."""

    files: list[str]
    folders: set[str]
    """Without the root itself."""
    read: Callable[[str], bytes]
    size: Callable[[str], int]
    """Bytes of a file; -1 where it cannot be looked at."""

    def inside(self, root: str) -> set[str]:
        """Names of the folders in a folder, without hidden ones."""
        names = (folder.rpartition("/")[2] for folder in self.folders if _parent(folder) == root)
        return {name for name in names if not name.startswith(".")}


class ClassFolders:
    """Pictures in class folders. See `Source`.

    Raises:
        ValueError: PATH is missing or holds no class, a class is empty, the split is missing, or
            its classes are not those of the other split.
    """

    def __init__(self, path: Path, split: Split) -> None:
        spec = f"folder:{path}"
        tree = _read_tar(path) if existing(path, spec).is_file() else _read_folder(path)
        root = _class_level(tree, split, spec)
        self._prefix = path.name + (":" if path.is_file() else "/")
        classes = sorted(tree.inside(root))
        if not classes:
            raise ValueError(
                f"data {spec}: no class folders in {self._prefix}{root}: expected "
                f"{split}/CLASS/picture or CLASS/picture"
            )
        self.class_names = tuple(classes)
        self._files, labels, passed_over = _pictures(tree.files, root, classes)
        self.labels: npt.NDArray[np.int64] = np.array(labels, np.int64)
        self.passed_over = tuple(passed_over)
        counts = np.bincount(self.labels, minlength=len(classes))
        if not counts.all():
            raise ValueError(
                f"data {spec}: class {classes[counts.argmin()]!r} in {self._prefix}{root} is "
                "empty: add pictures or remove it"
            )
        self._tree = tree
        self._side = small_side(lambda index: tree.read(self._files[index]), len(self._files))
        self.photographs = self._side is None

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> Pixels:
        """[H, W, 3] uint8."""
        name = self.describe(index)
        try:
            data = self._tree.read(self._files[index])
        except OSError as error:
            raise UnreadablePicture(name, error.strerror or str(error)) from None
        return decode_rgb(data, name, self._side)

    @cached_property
    def identity(self) -> str:
        """See `Source`."""
        contents = (named_size(file, self._tree.size(file)) for file in self._files)
        return fingerprint(self.class_names, self.labels, contents)

    def describe(self, index: int) -> str:
        """Archive or folder, and the file in it."""
        return f"{self._prefix}{self._files[index]}"


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _join(root: str, name: str) -> str:
    return f"{root}/{name}" if root else name


def _class_level(tree: _Tree, split: Split, spec: str) -> str:
    """The folder whose folders are the classes."""
    root = TOP
    while True:
        # A class may well be called "train" (CIFAR-100 has one); a split has folders in it.
        found = {
            name: inside
            for name in SPLITS
            if name in tree.inside(root) and (inside := tree.inside(_join(root, name)))
        }
        if split in found:
            for other in ("train", "val"):
                differing = sorted(found[split] ^ found.get(other, found[split]))
                if differing:
                    raise ValueError(
                        f"data {spec}: {split} and {other} have not the same classes, only one of "
                        f"them has {differing[0]!r}: labels would not mean the same"
                    )
            return _join(root, split)
        if found:
            raise ValueError(
                f"data {spec}: it has {', '.join(found)} but no folder {split} with class folders "
                "in it"
            )
        inside = tree.inside(root)
        if len(inside) != 1 or not tree.inside(lone := _join(root, *inside)):
            return root
        root = lone


def _pictures(
    files: list[str], root: str, classes: list[str]
) -> tuple[list[str], list[int], list[str]]:
    """Pictures below `root` in order, their labels, and the files that lie beside the classes."""
    label_of = {name: label for label, name in enumerate(classes)}
    pictures: list[str] = []
    labels: list[int] = []
    passed_over: list[str] = []
    start = len(root) + 1 if root else 0
    below = (file for file in files if not root or file.startswith(root + "/"))
    for file in sorted(below, key=lambda file: file.split("/")):
        parts = file[start:].split("/")
        if len(parts) == 1:
            passed_over.append(file)
        elif not any(part.startswith(".") for part in parts):
            pictures.append(file)
            labels.append(label_of[parts[0]])
    return pictures, labels, passed_over


def _read_folder(path: Path) -> _Tree:
    files: list[str] = []
    folders: set[str] = set()
    # Classes may be links to folders elsewhere: that is how subsets of ImageNet are made.
    for place, inside, names in os.walk(path, followlinks=True):
        here = Path(place).relative_to(path).as_posix()
        here = TOP if here == "." else here
        folders.update(_join(here, name) for name in inside)
        files.extend(_join(here, name) for name in names)

    def size(file: str) -> int:
        try:
            return (path / file).stat().st_size
        except OSError:
            return -1

    return _Tree(files, folders, lambda file: (path / file).read_bytes(), size)


def _read_tar(path: Path) -> _Tree:
    places: dict[str, tuple[int, int]] = {}
    folders: set[str] = set()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
                folder = name if member.isdir() else _parent(name)
                if not member.isdir():
                    if not member.isreg() or member.issparse():
                        raise ValueError(
                            f"data folder:{path}: {name} is a link or no plain file: pack the "
                            "archive again with tar --dereference --hard-dereference"
                        )
                    places[name] = (member.offset_data, member.size)
                while folder and folder not in folders:
                    folders.add(folder)
                    folder = _parent(folder)
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"data folder:{path}: not a whole, uncompressed tar archive ({error}): unpack it, or "
            "pack it again without compression"
        ) from None

    def read(name: str) -> bytes:
        start, size = places[name]
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    return _Tree(list(places), folders, read, lambda name: places[name][1])
