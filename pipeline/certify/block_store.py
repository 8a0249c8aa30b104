"""Finished blocks of a certification on disk, so that a killed one goes on where it was.

Notable: a block file is written beside its name and renamed, so it is whole or not there. Its first
line carries a key over everything that its numbers depend on (weights, data, bounds, versions,
device): a block of another model or an older program is never mixed in, it is computed again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.certify.radius import Floats

FORMAT = "certline block 1"


@dataclass(frozen=True)
class BlockStore:
    """The folder `blocks/` of a certificate directory."""

    folder: Path
    key: str

    def path(self, block: int) -> Path:
        """Where block number `block` is or will be."""
        return self.folder / f"{block:06d}.tsv"

    def write(self, block: int, rows: list[str], unsound_scores: Floats) -> None:
        """Store rows of images.tsv and, behind each, the score by the usual recipe."""
        lines = [f"{FORMAT} {self.key}"]
        lines += [f"{row}\t{score:.17g}" for row, score in zip(rows, unsound_scores, strict=True)]
        write_atomically(self.path(block), "\n".join(lines) + "\n")

    def read(self, block: int) -> tuple[list[str], Floats]:
        """What `write` was given; the block must be `finished`."""
        lines = self.path(block).read_text().splitlines()[1:]
        cells = [line.rpartition("\t") for line in lines]
        return [row for row, _, _ in cells], np.array([float(last) for _, _, last in cells])

    def finished(self, block: int, count: int) -> bool:
        """Whether the block is there with `count` rows under this store's key."""
        if not self.path(block).is_file():
            return False
        lines = self.path(block).read_text(errors="replace").splitlines()
        return len(lines) == count + 1 and lines[0] == f"{FORMAT} {self.key}"

    def clear(self) -> None:
        """Remove the folder and what this class wrote into it."""
        clear_folder(self.folder, "[0-9]*.tsv*")


def clear_folder(folder: Path, pattern: str) -> None:
    """Remove the files of a pattern, and their folder if nothing else is in it."""
    for path in folder.glob(pattern):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is either whole or not there, whenever the program is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp")  # one writer, so one name
    with beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
