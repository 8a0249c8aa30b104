"""Files that are either whole or known to be damaged: durable writes, verified reads.

Notable:
- The hash of a written file is taken from memory, not read back: what a failing disk stored is
  never what blesses it.
- Large files are written and verified in chunks: no second copy of a checkpoint in memory, and
  Python's lock is free during each, so that a training step can run beside.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 4 << 20
"""Bytes that are hashed and written, or read and hashed, at a time."""
_LOST = {errno.EIO, errno.ENOTDIR, errno.EISDIR}
"""Errors of reading that tell of the file itself, and not of the server."""


class DamagedError(Exception):
    """A file is missing, cut short or altered; the message says which and how."""


@dataclass(frozen=True)
class FileRecord:
    """What a manifest says of one file."""

    name: str
    """Plain file name inside the checkpoint's directory."""
    part: str
    """What the file belongs to: "model", "optimizer", "state", …; a sharded part has several."""
    size: int
    """Bytes."""
    sha256: str

    @classmethod
    def parse(cls, entry: Any) -> FileRecord:
        """Read one entry of a manifest.

        Raises:
            DamagedError: not such an entry, or a name that leads out of the directory.
        """
        try:
            record = cls(entry["name"], entry["part"], entry["size"], entry["sha256"])
        except (KeyError, TypeError):
            raise DamagedError(f"the manifest has an entry that is no file: {entry!r}") from None
        if not isinstance(record.name, str) or Path(record.name).name != record.name:
            raise DamagedError(f"the manifest names {record.name!r}, which is no plain file name")
        if not isinstance(record.size, int):
            raise DamagedError(f"the manifest gives {record.name} the size {record.size!r}")
        return record


def write_file(
    folder: Path, name: str, part: str, pieces: Iterable[bytes | memoryview]
) -> FileRecord:
    """Write a new file and wait until it is on the disk.

    Args:
        folder: exists.
        name, part: of the record.
        pieces: the content, one behind the other; memoryviews are of bytes.

    Raises:
        OSError: the disk is full or broken, or there is a file of this name.
    """
    digest, size = hashlib.sha256(), 0
    with (folder / name).open("xb") as file:
        for chunk in _chunks(pieces):
            digest.update(chunk)
            file.write(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(name, part, size, digest.hexdigest())


def verify_file(folder: Path, record: FileRecord) -> None:
    """Read all of a file and compare size and hash with those of its record.

    Raises:
        DamagedError: they differ, or the file is lost.
        OSError: it cannot be read at the moment.
    """
    path, digest = folder / record.name, hashlib.sha256()
    try:
        size = path.stat().st_size
        if size == record.size:
            buffer = memoryview(bytearray(min(CHUNK, max(size, 1))))
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    digest.update(buffer[:count])
    except OSError as error:
        raise unreadable(path, error) from None
    _compare(record, size, digest.hexdigest())


def read_verified(folder: Path, record: FileRecord) -> bytes:
    """The bytes of a small file, once size and hash are those of its record.

    Raises:
        DamagedError: they are not, or the file is lost.
        OSError: it cannot be read at the moment.
    """
    data = read_present(folder / record.name)
    _compare(record, len(data), hashlib.sha256(data).hexdigest())
    return data


def read_present(path: Path) -> bytes:
    """The bytes of a file that must be there.

    Raises:
        DamagedError: it is missing or lost.
        OSError: it cannot be read at the moment.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def sync_directory(folder: Path) -> None:
    """Wait until the names in a directory (new files, renames) are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _chunks(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """The pieces, cut where they are longer than CHUNK."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), CHUNK):
            yield view[start : start + CHUNK]


def _compare(record: FileRecord, size: int, sha256: str) -> None:
    """Raise if a file is not the one of the record."""
    if size < record.size:
        raise DamagedError(f"{record.name} is cut short: {size} bytes instead of {record.size}")
    if size > record.size:
        raise DamagedError(f"{record.name} has {size} bytes instead of {record.size}")
    if sha256 != record.sha256:
        raise DamagedError(f"{record.name} was altered: its sha256 is not the one in the manifest")


def unreadable(path: Path, error: OSError) -> Exception:
    """What to raise for a file that must be there and cannot be read.

    Only what says that the file itself is lost is damage. A file server that is away for a moment
    must not cost a run its checkpoints.
    """
    if isinstance(error, FileNotFoundError):
        return DamagedError(f"{path.name} is missing")
    if error.errno in _LOST:
        return DamagedError(f"{path.name} cannot be read: {error.strerror}")
    return error
