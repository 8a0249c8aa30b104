"""Files that are either whole or known to be damaged: durable writes, verified reads.

Notable:
- The hash of a written file is taken from memory, not read back: what a failing disk stored is
  never what blesses it.
- What is verified is what is used: `read_verified` returns the very bytes that it hashed.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
        return record


def write_file(folder: Path, name: str, part: str, data: bytes) -> FileRecord:
    """Write `data` and wait until it is on the disk."""
    with (folder / name).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(name, part, len(data), hashlib.sha256(data).hexdigest())


def read_verified(folder: Path, record: FileRecord) -> bytes:
    """The bytes of a file, once size and hash are those of its record.

    Raises:
        DamagedError: they are not, or the file cannot be read.
    """
    data = read_present(folder / record.name)
    if len(data) != record.size:
        raise DamagedError(f"{record.name} has {len(data)} bytes instead of {record.size}")
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise DamagedError(f"the sha256 of {record.name} is not the one in the manifest")
    return data


def read_present(path: Path) -> bytes:
    """The bytes of a file that must be there.

    Raises:
        DamagedError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path.name} is missing") from None
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read: {error.strerror}") from None


def sync_directory(folder: Path) -> None:
    """Wait until the names in a directory (new files, renames) are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
