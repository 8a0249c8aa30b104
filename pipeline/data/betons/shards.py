"""What is finished of a .beton file that is being written, so that a killed writer can go on.

Notable:
- A shard is `SHARD` consecutive samples of the source. Its pictures are in the .partial file, safe
  on disk, before its record is; a writer that goes on cuts the file back to the last record and
  repeats nothing that lies before.
- The records lie in `NAME.beton.parts/`, one .npz a shard, with a digest of all that the bytes
  depend on: source, split, storage, Pillow. If it is not the same, the writing begins again.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.betons.format import TABLE_ENTRY

SHARD = 2048

DIGEST = np.dtype("V16")


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be read."""

    index: int
    """In the source."""
    picture: str
    reason: str


@dataclass(frozen=True)
class Shard:
    """What is known of one shard when its pictures are in the file."""

    records: npt.NDArray[Any]
    """[n] of the file's record type."""
    table: npt.NDArray[Any]
    """[n] of TABLE_ENTRY."""
    digests: npt.NDArray[np.void]
    """[n] of DIGEST: of the stored pixels before any compression."""
    indices: npt.NDArray[np.int64]
    """[n], of the samples in the source."""
    sizes: npt.NDArray[np.int64]
    """[n, 2] height and width in the source."""
    skipped: tuple[Skipped, ...]
    stop: int
    """The first sample of the source that is not in it."""
    end: int
    """Where the next picture may lie in the file."""


class Parts:
    """The finished shards of one file.

    Args:
        out: the .beton file to be.
        fingerprint: of all that its bytes depend on.
        record_type: of its samples.
    """

    def __init__(self, out: Path, fingerprint: str, record_type: np.dtype[Any]) -> None:
        self._record_type = record_type
        self._folder = out.with_name(out.name + ".parts")
        self._fingerprint = fingerprint
        self.shards = self._read()

    @property
    def any_finished(self) -> bool:
        """Whether there is something to go on from."""
        return bool(self.shards)

    def add(self, shard: Shard) -> None:
        """Note a shard whose pictures are safe on disk."""
        self._folder.mkdir(exist_ok=True)
        content = io.BytesIO()
        np.savez(
            content,
            records=shard.records.view(np.uint8),
            table=shard.table.view(np.uint8),
            digests=shard.digests.view(np.uint8),
            indices=shard.indices,
            sizes=shard.sizes,
            facts=np.frombuffer(json.dumps(self._facts(shard)).encode(), np.uint8),
        )
        path = self._folder / f"{len(self.shards):06d}.npz"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(content.getvalue())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        self.shards.append(shard)

    def clear(self) -> None:
        """Forget everything: the file is finished, or begins anew."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.shards = []

    def _facts(self, shard: Shard) -> dict[str, Any]:
        return {
            "fingerprint": self._fingerprint,
            "stop": shard.stop,
            "end": shard.end,
            "skipped": [[s.index, s.picture, s.reason] for s in shard.skipped],
        }

    def _read(self) -> list[Shard]:
        """The shards up to the first that is missing, damaged or of another file."""
        shards: list[Shard] = []
        while True:
            path = self._folder / f"{len(shards):06d}.npz"
            try:
                shards.append(self._read_one(path))
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
                return shards

    def _read_one(self, path: Path) -> Shard:
        with np.load(path, allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["fingerprint"] != self._fingerprint:
                raise ValueError("of another file")
            return Shard(
                records=arrays["records"].view(self._record_type),
                table=arrays["table"].view(TABLE_ENTRY),
                digests=arrays["digests"].view(DIGEST),
                indices=arrays["indices"],
                sizes=arrays["sizes"],
                skipped=tuple(Skipped(*entry) for entry in facts["skipped"]),
                stop=facts["stop"],
                end=facts["end"],
            )
