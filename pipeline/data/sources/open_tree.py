"""`open_tree`: a folder or an archive, whichever it is."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.data.sources.tar import CompressedTar, Tar
from pipeline.data.sources.tree import FolderTree, Tree
from pipeline.data.sources.zip import Zip


def open_tree(path: Path, spec: str, wanted: Collection[str] = ()) -> Tree:
    """A folder, an uncompressed tar or a zip archive as a tree.

    Args:
        path: exists.
        spec: for messages.
        wanted: the names of the files that are read from a compressed tar, which is refused
            otherwise.

    Raises:
        ValueError: it is none of them.
    """
    if path.is_dir():
        return FolderTree(path, spec)
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        return Zip(path, spec)
    if wanted and not path.name.endswith(".tar"):
        return CompressedTar(path, spec, wanted)
    return Tar(path, spec)
