"""The directories of a run's checkpoints: `step_000123/`, begun, published, pruned.

Notable:
- A checkpoint is written beside as `.step_000123.TOKEN.tmp`, every file and the directory fsynced,
  and renamed: under its final name it is whole from the first moment. Deleting goes the same way
  back. The token is another one in every save: a rank of an earlier attempt that was frozen and
  wakes up cannot write into what the new attempt saves.
- A directory may hold more than its manifest lists (an editor's or a file server's droppings);
  nothing but what is listed is ever read.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.checkpoint.files import FileRecord, sync_directory
from pipeline.checkpoint.manifest import write_manifest
from pipeline.checkpoint.retention import doomed

_FINAL = re.compile(r"step_(\d+)")
_SET_ASIDE = re.compile(r"\.step_(\d+)\.old")


def final_path(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies once it is whole."""
    return root / f"step_{step:06d}"


def begin(root: Path, step: int) -> Path:
    """Make the directory that a checkpoint is written in. Called by rank 0.

    Args:
        root: folder of the run's checkpoints; made where missing. Only one run may write to it:
            what a killed writer left half done is cleared away here.

    Raises:
        OSError: it cannot be made.
    """
    root.mkdir(parents=True, exist_ok=True)
    _clear_remains(root)
    temporary = root / f".{final_path(root, step).name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir()
    return temporary


def commit(temporary: Path, step: int, records: Sequence[FileRecord]) -> Path:
    """Make the written files a checkpoint under its final name. Called by rank 0.

    Raises:
        OSError: the disk is full or broken; there is nothing new under the final name.
    """
    write_manifest(temporary, step, records)
    sync_directory(temporary)
    final = final_path(temporary.parent, step)
    _publish(temporary, final)
    return final


def prune(root: Path, step: int, keep: int, keep_best: int) -> None:
    """Delete what need not be kept beside the checkpoint of `step`, the one just written.

    What cannot be read or deleted now (somebody reads it, a file server is away) is kept; the next
    save tries again, and clears what is half deleted.
    """
    with suppress(OSError):
        for path in doomed(candidates(root), step, keep, keep_best):
            gone = path.rename(path.with_name(f".{path.name}.tmp"))  # half deleted is not damaged
            shutil.rmtree(gone, ignore_errors=True)


def candidates(root: Path) -> list[tuple[int, Path]]:
    """Step and path of what may be loaded, newest first; one set aside comes after its heir."""
    if not root.is_dir():
        return []
    found = [
        (int(match[1]), pattern is _FINAL, path)
        for path in root.iterdir()
        for pattern in (_FINAL, _SET_ASIDE)
        if (match := pattern.fullmatch(path.name))
    ]
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def _publish(temporary: Path, final: Path) -> None:
    """Give the written directory its final name, in place of an older one of the same step.

    A directory cannot be renamed onto a full one. The older is set aside in between, and loading
    knows it there: no moment is without a whole checkpoint.
    """
    set_aside = final.with_name(f".{final.name}.old")
    if final.exists():
        final.rename(set_aside)
    temporary.rename(final)
    sync_directory(final.parent)
    if set_aside.exists():
        shutil.rmtree(set_aside, ignore_errors=True)


def _clear_remains(root: Path) -> None:
    """Undo what killed writers left: half written or half deleted goes, set aside comes back.

    What cannot be deleted now stays until the next save.
    """
    for path in root.glob(".step_*"):
        final = path.with_name(path.stem.removeprefix("."))
        if _SET_ASIDE.fullmatch(path.name) and not final.exists():
            path.rename(final)
        else:
            shutil.rmtree(path, ignore_errors=True)
