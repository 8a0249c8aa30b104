"""`folder:PATH`: a folder, or a tar read in place, of class folders with one file a picture.

Notable:
- If PATH holds a folder named like the split (`train`, `val`), the classes are in there; otherwise
  they are PATH's own folders. Labels are the classes in sorted order, as everywhere for ImageNet.
- Other files where classes are expected are passed over and named; inside a class every file is a
  picture, however deep it lies, except hidden ones.
- A tar is never unpacked: where each member lies is noted once, and every read opens the file
  anew, so that forked writers do not share a position.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.base import Pixels, Split, decode_rgb, existing


@dataclass(frozen=True)
class _Tree:
    """Files and folders under a root, and how to read them."""

    files: list[PurePosixPath]
    folders: set[PurePosixPath]
    read: Callable[[PurePosixPath], bytes]


class ClassFolders:
    """Photographs in class folders. See `Source`.

    Raises:
        ValueError: PATH is missing, holds no class, or a class is empty.
    """

    photographs = True

    def __init__(self, path: Path, split: Split) -> None:
        tree = _read_tar(path) if existing(path, f"folder:{path}").is_file() else _read_folder(path)
        root = PurePosixPath(split)
        if root not in tree.folders:
            root = PurePosixPath(".")
        separator = ":" if path.is_file() else "/"
        self._prefix = f"{path.name}{separator}"
        classes = sorted(
            folder.name
            for folder in tree.folders
            if folder.parent == root and not folder.name.startswith(".")
        )
        if not classes:
            raise ValueError(
                f"data folder:{path}: no class folders in {self._prefix}{root}: expected "
                f"{split}/CLASS/picture or CLASS/picture"
            )
        label_of = {name: label for label, name in enumerate(classes)}
        self.class_names = tuple(classes)
        self._files: list[PurePosixPath] = []
        labels: list[int] = []
        passed_over: list[str] = []
        depth = len(root.parts)
        for file in sorted(tree.files):
            if file.parts[:depth] != root.parts:
                continue
            if len(file.parts) == depth + 1:
                passed_over.append(str(file))
            elif not any(part.startswith(".") for part in file.parts[depth:]):
                self._files.append(file)
                labels.append(label_of[file.parts[depth]])
        self.passed_over = tuple(passed_over)
        self.labels: npt.NDArray[np.int64] = np.array(labels, np.int64)
        found = set(labels)
        for label, name in enumerate(classes):
            if label not in found:
                raise ValueError(
                    f"data folder:{path}: class {name!r} in {self._prefix}{root} is empty: "
                    "add pictures or remove it"
                )
        self._read = tree.read

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> Pixels:
        """[H, W, 3] uint8 of varying size."""
        return decode_rgb(self._read(self._files[index]), self.describe(index))

    def describe(self, index: int) -> str:
        """Archive or folder, and the file in it."""
        return f"{self._prefix}{self._files[index]}"


def _read_folder(path: Path) -> _Tree:
    files: list[PurePosixPath] = []
    folders: set[PurePosixPath] = set()
    for entry in path.rglob("*"):
        relative = PurePosixPath(*entry.relative_to(path).parts)
        if entry.is_dir():
            folders.add(relative)
        else:
            files.append(relative)
    return _Tree(files, folders, lambda file: (path / file).read_bytes())


def _read_tar(path: Path) -> _Tree:
    places: dict[PurePosixPath, tuple[int, int]] = {}
    folders: set[PurePosixPath] = set()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if member.isfile():
                    places[name] = (member.offset_data, member.size)
                    folders.update(name.parents)
                elif member.isdir():
                    folders.update([name, *name.parents])
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"data folder:{path}: not an uncompressed tar archive ({error}): unpack it, or pack it "
            "again without compression"
        ) from None

    def read(name: PurePosixPath) -> bytes:
        start, size = places[name]
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    return _Tree(list(places), folders, read)
