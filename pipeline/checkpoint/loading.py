"""Checkpoints from disk to every rank: found, verified together, damaged ones passed over.

Notable:
- Every byte is verified before anything is used: the files are divided over the ranks, each hashes
  its share, and the verdicts are gathered, so that all ranks take the same checkpoint.
- Verifying a file also reads its header. The headers are gathered too: every rank then knows where
  each value lies, and reads only what it needs. At 512 ranks under ZeRO-3 that is some ten MB.
- Nothing in a checkpoint is ever unpickled: tensors are safetensors, all else is JSON.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.checkpoint.files import DamagedError, FileRecord, verify_file
from pipeline.checkpoint.fragments import SavedState
from pipeline.checkpoint.manifest import STATE_PART, read_manifest
from pipeline.checkpoint.retention import best_first, read_state
from pipeline.checkpoint.sharded_state import ShardedState
from pipeline.checkpoint.store import candidates
from pipeline.checkpoint.tensor_file import StoredRun, stored_runs
from pipeline.distributed import (
    broadcast_object,
    current_world,
    gather_objects,
    raise_together,
    together,
)

T = TypeVar("T")

NAMED = 3
"""Damaged files that a sentence names one by one."""
PATIENCE = 90.0
"""Seconds that a network file system gets to show all nodes the same directory; NFS remembers a
listing for up to 60."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped."""

    step: int
    """Optimizer steps done."""
    tensors: SavedState
    """By part ("model", "optimizer", …) and name; `tensors.part("model")` reads a whole part."""
    state: dict[str, Any]
    """Plain JSON values."""


def load_latest(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint, on every rank; None if there has never been one.

    A collective, as all functions here.

    Args:
        root: folder of the run's checkpoints; it need not exist.
        say: takes one sentence for each damaged checkpoint, e.g. `pipeline.progress.say`.

    Raises:
        ValueError: there are checkpoints, but none is whole; or the ranks see different ones.
        RuntimeError: another rank failed to read.
    """
    found = _candidates_everywhere(root)
    if not found:
        return None
    return _first_whole(root, found, say)


def load_chosen(root: Path, which: str, say: Callable[[str], None]) -> Checkpoint:
    """The checkpoint that a person asks for.

    Args:
        root: folder of the run's checkpoints.
        which: "newest"; "best" by the estimate of VRA when it was validated; or a step, "500".
        say: as `load_latest`.

    Raises:
        ValueError: there is no such checkpoint, or none that is whole; or `which` is not readable.
    """
    if which not in ("newest", "best") and not which.isdecimal():
        near = difflib.get_close_matches(which, ["newest", "best"], n=1, cutoff=0.65)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"checkpoint {which!r} is neither newest nor best nor a step{hint}")
    found = _candidates_everywhere(root)
    if not found:
        raise ValueError(f"{root} has no checkpoint: train first")
    if which == "newest":
        return _first_whole(root, found, say)
    if which == "best":
        best, damaged = _on_rank_0(lambda: best_first(found))
        for sentence in damaged:
            say(f"damaged checkpoint in {root}, {sentence}; it cannot be taken as the best")
        if not best:
            raise ValueError(
                f"no checkpoint in {root} was validated, so none is known as the best: take newest "
                f"or a step ({_steps(found)})"
            )
        return _first_whole(root, best, say)
    for step, path in found:
        if step == int(which):
            try:
                return read_checkpoint(path, step)
            except DamagedError as reason:
                raise ValueError(
                    f"checkpoint {path} is damaged ({reason}): take another step ({_steps(found)})"
                ) from None
    raise ValueError(f"{root} has no checkpoint of step {which}: it has {_steps(found)}")


def read_checkpoint(path: Path, step: int) -> Checkpoint:
    """Verify all of one checkpoint, together, and open it.

    Raises:
        DamagedError: a file is missing or not the one written; on all ranks.
        ValueError: it is of another format version; on all ranks.
        OSError: a file cannot be read at the moment.
        RuntimeError: the same on another rank.
    """
    records, state = _on_rank_0(lambda: (read_manifest(path, step), read_state(path, step)))
    tensor_files = [record for record in records if record.part != STATE_PART]
    world = current_world()
    runs, damages = [], []
    with together():  # a file server that is away for one rank
        for record in shares(tensor_files, world.size)[world.rank]:
            try:
                verify_file(path, record)
                runs.append((record.part, stored_runs(path, record.name)))
            except DamagedError as damage:
                damages.append(str(damage))
    everywhere = gather_objects((runs, damages))
    if named := [damage for _, damages in everywhere for damage in damages]:
        more = f"; and {len(named) - NAMED} more" if len(named) > NAMED else ""
        raise DamagedError("; ".join(named[:NAMED]) + more)
    parts: dict[str, list[StoredRun]] = {}
    for found, _ in everywhere:
        for part, stored in found:
            parts.setdefault(part, []).extend(stored)
    return Checkpoint(step, ShardedState(path, parts), state)


def shares(records: Sequence[FileRecord], size: int) -> list[list[FileRecord]]:
    """The files that each of `size` ranks verifies: largest first to who has the least to read."""
    parts: list[list[FileRecord]] = [[] for _ in range(size)]
    loads = [0] * size
    for record in sorted(records, key=lambda record: (-record.size, record.name)):
        rank = loads.index(min(loads))
        parts[rank].append(record)
        loads[rank] += record.size
    return parts


def _first_whole(
    root: Path, found: Sequence[tuple[int, Path]], say: Callable[[str], None]
) -> Checkpoint:
    """The first checkpoint that verifies; damaged ones before it are named."""
    damaged: list[str] = []
    for step, path in found:
        try:
            checkpoint = read_checkpoint(path, step)
        except DamagedError as reason:
            damaged.append(f"{path.name}: {reason}")
            continue
        for sentence in damaged:
            say(f"damaged checkpoint in {root}, {sentence}; using {path.name} instead")
        return checkpoint
    raise ValueError(
        f"no checkpoint in {root} is whole ({'; '.join(damaged)}): delete that folder to train "
        "from the beginning"
    )


def _candidates_everywhere(root: Path) -> list[tuple[int, Path]]:
    """What may be loaded, newest first, once all ranks see the same."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found: list[tuple[int, Path]] = []
        error: Exception | None = None
        try:
            found = candidates(root)
        except OSError as failure:
            error = failure
        raise_together(error)
        seen = gather_objects([path.name for _, path in found])
        if all(names == seen[0] for names in seen):
            return found
        if broadcast_object(time.monotonic() > deadline):
            newest = [names[0] if names else "none" for names in seen]
            listed = ", ".join(f"rank {rank}: {name}" for rank, name in enumerate(newest))
            raise ValueError(
                f"the ranks find different checkpoints in {root} ({listed}): the run directory "
                "must lie on storage that all nodes share"
            )
        time.sleep(1)


def _on_rank_0(read: Callable[[], T]) -> T:
    """What rank 0 reads, on all ranks; so are its errors."""
    value: T | None = None
    error: Exception | None = None
    if current_world().is_main:
        try:
            value = read()
        except (DamagedError, ValueError, OSError) as failure:
            error = failure
    value, error = broadcast_object((value, error))
    if error is not None:
        raise error
    assert value is not None
    return value


def _steps(found: Sequence[tuple[int, Path]]) -> str:
    """The steps there are, for a sentence."""
    return ", ".join(str(step) for step, _ in sorted(found))
