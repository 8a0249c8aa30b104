"""`manifest.json`: which files make a checkpoint, each with size and sha256, and a hash of itself.

Notable:
- The list is the whole seam for sharded saving. A part (say "optimizer") may consist of several
  files, each written by the rank that owns it; who writes the manifest last makes them one
  checkpoint.
- Format 1 had whole tensors only; its files are read as those of format 2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.checkpoint.files import DamagedError, FileRecord, read_present, write_file

FORMAT = "certline checkpoint 2"
READ = ("certline checkpoint 1", FORMAT)
NAME = "manifest.json"
STATE_PART = "state"
"""The part of state.json; all others are of tensors."""


def write_manifest(folder: Path, step: int, records: Sequence[FileRecord]) -> None:
    """Write the manifest of files that are in `folder` already."""
    body = {"format": FORMAT, "step": step, "files": [asdict(record) for record in records]}
    text = json.dumps(body | {"sha256": _digest(body)}, indent=1)
    write_file(folder, NAME, "manifest", [text.encode()])


def read_manifest(folder: Path, step: int) -> list[FileRecord]:
    """The records of a checkpoint's files, which are not read yet.

    Raises:
        DamagedError: the manifest is missing, altered, or that of another step.
        ValueError: it is whole, and of a format that this version does not read.
    """
    try:
        body = json.loads(read_present(folder / NAME))
        stated = body.pop("sha256")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise DamagedError(f"{NAME} is not a manifest") from None
    if stated != _digest(body):
        raise DamagedError(f"{NAME} does not have the sha256 that it states of itself")
    if body.get("format") not in READ:
        raise ValueError(
            f"checkpoint {folder} has the format {body.get('format')!r}; this version reads "
            f"{' and '.join(map(repr, READ))}: continue the run with the version that began it"
        )
    if body["step"] != step:
        raise DamagedError(f"{NAME} is that of step {body['step']}")
    return [FileRecord.parse(entry) for entry in body["files"]]


def _digest(body: dict[str, Any]) -> str:
    """sha256 of the manifest's content, however it is laid out in the file."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
