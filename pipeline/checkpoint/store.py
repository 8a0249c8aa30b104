"""Checkpoints on disk: `step_000123/` with safetensors, JSON and a manifest of hashes.

Notable:
- A checkpoint is written beside as `.step_000123.tmp`, every file and the directory fsynced, and
  renamed: under its final name it is whole from the first moment. Deleting goes the same way back.
- Loading verifies every byte. A damaged checkpoint is named and the one before it is used.
- Nothing is pickled: tensors are safetensors, all else is JSON.
- A directory may hold more than its manifest lists (an editor's or a file server's droppings);
  nothing but what is listed is ever read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import torch as safetensors
from torch import Tensor

from pipeline.checkpoint.files import (
    DamagedError,
    FileRecord,
    read_verified,
    sync_directory,
    write_file,
)
from pipeline.checkpoint.manifest import read_manifest, write_manifest
from pipeline.distributed import gather_objects, raise_together

STATE_PART = "state"
_FINAL = re.compile(r"step_(\d+)")
_SET_ASIDE = re.compile(r"\.step_(\d+)\.old")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped."""

    step: int
    """Optimizer steps done."""
    tensors: dict[str, dict[str, Tensor]]
    """Named tensors by part ("model", "optimizer", …), any dtype and shape; CPU when loaded."""
    state: dict[str, Any]
    """Plain JSON values: text keys, lists rather than tuples, no NaN. Floats return to the bit."""


def save_checkpoint(root: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `root/step_…`, durable when this returns, and delete all but the newest `keep`.

    Called by one process (rank 0): the state of data-parallel ranks is equal. No collective is
    made, so the caller passes an error on to the other ranks.

    Args:
        root: folder of the run's checkpoints; made where missing. Only one run may write to it:
            what a killed writer left half done is cleared away here.
        checkpoint: tensors may be on any device.
        keep: at least 1. Checkpoints of later steps (damaged ones that loading passed over) are
            neither counted nor deleted; the run replaces them when it gets there.

    Raises:
        OSError: the disk is full or broken. Older checkpoints are untouched, and there is nothing
            under the new one's name. Or an old one cannot be deleted; the new one is then written.
        ValueError: `checkpoint.state` is not plain JSON.
    """
    assert keep >= 1, f"keep {keep} would delete the checkpoint just written"
    final = root / f"step_{checkpoint.step:06d}"
    temporary = root / f".{final.name}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clear_remains(root)
        temporary.mkdir()
        write_manifest(temporary, checkpoint.step, _write_parts(temporary, checkpoint))
        sync_directory(temporary)
        _publish(temporary, final)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            error.errno,
            f"checkpoint {final} could not be written ({error.strerror}): mend that and give the "
            "same command again; the run goes on from the last whole checkpoint",
        ) from error
    _prune(root, checkpoint.step, keep)  # apart: a failure here does not mean that it is unwritten
    return final


def load_latest(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint, on every rank; None if there has never been one.

    A collective: every rank calls it, reads for itself, and all must find the same step.

    Args:
        root: folder of the run's checkpoints; it need not exist.
        say: takes one sentence for each damaged checkpoint, e.g. `pipeline.progress.say`.

    Raises:
        ValueError: there are checkpoints, but none is whole; or the ranks see different ones.
        RuntimeError: another rank failed to read.
    """
    found: Checkpoint | None = None
    error: Exception | None = None
    try:
        found = _newest_whole(root, say)
    except (OSError, ValueError) as failure:
        error = failure
    raise_together(error)
    steps = gather_objects(found.step if found else None)
    if len(set(steps)) > 1:
        seen = ", ".join(f"rank {rank}: {step}" for rank, step in enumerate(steps))
        raise ValueError(
            f"the ranks find different checkpoints in {root} ({seen}): the run directory must lie "
            "on storage that all nodes share"
        )
    return found


def read_checkpoint(path: Path, step: int) -> Checkpoint:
    """Read one checkpoint and verify all of it.

    Raises:
        DamagedError: a file is missing or not the one written.
        ValueError: it is of another format version.
    """
    tensors: dict[str, dict[str, Tensor]] = {}
    state: dict[str, Any] = {}
    for record in read_manifest(path, step):
        data = read_verified(path, record)
        if record.part == STATE_PART:
            state = json.loads(data)
            continue
        shard = safetensors.load(data)
        whole = tensors.setdefault(record.part, {})
        assert whole.keys().isdisjoint(shard), f"{path}: shards of {record.part} overlap"
        whole.update(shard)
    return Checkpoint(step, tensors, state)


def _newest_whole(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies; damaged ones are named on the way."""
    damaged: list[str] = []
    for step, path in _candidates(root):
        try:
            found = read_checkpoint(path, step)
        except DamagedError as reason:
            damaged.append(f"{path.name}: {reason}")
            continue
        for sentence in damaged:
            say(f"damaged checkpoint in {root}, {sentence}; using {path.name} instead")
        return found
    if damaged:
        raise ValueError(
            f"no checkpoint in {root} is whole ({'; '.join(damaged)}): delete that folder to train "
            "from the beginning"
        )
    return None


def _candidates(root: Path) -> list[tuple[int, Path]]:
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


def _write_parts(folder: Path, checkpoint: Checkpoint) -> list[FileRecord]:
    """One safetensors file a part, and the state as JSON."""
    assert STATE_PART not in checkpoint.tensors, f"{STATE_PART!r} names the JSON part"
    records = [
        write_file(folder, f"{part}.safetensors", part, safetensors.save(_plain(tensors)))
        for part, tensors in checkpoint.tensors.items()
    ]
    text = json.dumps(checkpoint.state, indent=1, allow_nan=False)
    assert json.loads(text) == checkpoint.state, "state must be plain JSON values"
    return [*records, write_file(folder, "state.json", STATE_PART, text.encode())]


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, each with storage of its own as safetensors wants them."""
    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if value.untyped_storage().data_ptr() in storages:
            value = value.clone()
        storages.add(value.untyped_storage().data_ptr())
        plain[name] = value
    return plain


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
        shutil.rmtree(set_aside)


def _prune(root: Path, step: int, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints up to `step`, the one just written."""
    finals = [path for found, path in _candidates(root) if found <= step]
    for path in finals[keep:]:
        doomed = path.rename(path.with_name(f".{path.name}.tmp"))  # half deleted is not damaged
        shutil.rmtree(doomed)


def _clear_remains(root: Path) -> None:
    """Undo what killed writers left: half written or half deleted goes, set aside comes back."""
    for path in root.glob(".step_*"):
        final = path.with_name(path.stem.removeprefix("."))
        if _SET_ASIDE.fullmatch(path.name) and not final.exists():
            path.rename(final)
        else:
            shutil.rmtree(path)
