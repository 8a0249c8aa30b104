"""Saving in the background: every rank writes its share in a thread, rank 0 makes it a checkpoint.

Notable:
- A save has two jobs. First each rank writes its files beside; then rank 0 writes the manifest,
  renames and prunes. Both run in threads, and no thread makes a collective: between the jobs the
  ranks meet in `advance`, in a step in which nobody is busy. So steps never wait for a disk.
- Killed at any moment the save is lost, and nothing else: only what has a manifest is ever renamed.
- An error of one rank's disk is the same OSError on all ranks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.checkpoint.files import FileRecord
from pipeline.checkpoint.fragments import Part
from pipeline.checkpoint.share import state_text, write_share
from pipeline.checkpoint.store import begin, commit, final_path, prune
from pipeline.distributed import World, gather_objects, raise_together
from pipeline.distributed.background import Background

T = TypeVar("T")


@dataclass(frozen=True)
class _OpenSave:
    """The save that is not committed yet."""

    step: int
    folder: Path
    writing: Background[list[FileRecord]] | None
    """None once all ranks have written."""
    committing: Background[None] | None = None
    """On rank 0."""


class Saver:
    """Writes a run's checkpoints.

    Args:
        root: folder of the run's checkpoints; made where missing. Only one run may write to it.
        world: this rank's place.
        keep: newest checkpoints kept; at least 1.
        keep_best: best checkpoints kept beside them, see `retention`.
    """

    def __init__(self, root: Path, world: World, keep: int = 1, keep_best: int = 0) -> None:
        assert keep >= 1, f"keep {keep} would delete the checkpoint just written"
        self._root = root
        self._world = world
        self._keep = keep
        self._keep_best = keep_best
        self._save: _OpenSave | None = None

    @property
    def is_open(self) -> bool:
        """A save was begun and is not committed; equal on all ranks."""
        return self._save is not None

    @property
    def busy(self) -> bool:
        """This rank's thread is at work."""
        save = self._save
        return save is not None and any(
            job is not None and job.busy for job in (save.writing, save.committing)
        )

    def begin(self, step: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
        """Start writing the checkpoint of `step`. A collective; no save is open.

        Args:
            step: optimizer steps done.
            parts: what this rank has to save, on the CPU; must not change afterwards.
            state: plain JSON values, see `state_text`; rank 0's is written.

        Raises:
            OSError: as `advance`.
        """
        assert not self.is_open, "one save at a time: finish the open one"
        text, prepare = None, None
        if self._world.is_main:
            text = state_text(state)
            prepare = partial(self._named, step, partial(begin, self._root, step))
        folder = _together(prepare)[0]
        assert folder is not None, "rank 0 makes the folder"
        write = partial(write_share, folder, parts, text, self._world)
        self._save = _OpenSave(step, folder, Background(partial(self._named, step, write)))

    def advance(self) -> None:
        """Go on with the open save, if there is one. A collective; waits where a rank is busy.

        Raises:
            OSError: the disk of a rank is full or broken; on all ranks. Older checkpoints are
                untouched, and there is nothing under the new one's name.
        """
        save, self._save = self._save, None
        if save is None:
            return
        if save.writing is None:
            _together(save.committing.result if save.committing else None)
            return
        try:
            written = _together(save.writing.result)
        except OSError:
            if self._world.is_main:  # every rank's thread is done
                shutil.rmtree(save.folder, ignore_errors=True)
            raise
        committing: Background[None] | None = None
        if self._world.is_main:
            records = [record for of_rank in written for record in of_rank or []]
            committing = Background(partial(self._commit, save.folder, save.step, records))
        self._save = _OpenSave(save.step, save.folder, None, committing)

    def finish(self) -> None:
        """Wait until the open save, if there is one, is committed. A collective.

        Raises:
            OSError: as `advance`.
        """
        while self.is_open:
            self.advance()

    def _commit(self, folder: Path, step: int, records: list[FileRecord]) -> None:
        """Rank 0's second job."""
        try:
            self._named(step, partial(commit, folder, step, records))
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        prune(self._root, step, self._keep, self._keep_best)

    def _named(self, step: int, job: Callable[[], T]) -> T:
        """Do what writing the checkpoint of `step` needs; an error says so."""
        try:
            return job()
        except OSError as error:
            raise OSError(
                error.errno,
                f"checkpoint {final_path(self._root, step)} could not be written "
                f"({error.strerror}): mend that and give the same command again; the run goes on "
                "from the last whole checkpoint",
            ) from error


def _together(job: Callable[[], T] | None) -> list[T | None]:
    """Every rank's result, on every rank; the first OSError of any rank is raised on all."""
    result: T | None = None
    failure: Exception | None = None
    try:
        result = job() if job is not None else None
    except Exception as error:
        failure = error
    known = failure if isinstance(failure, OSError) else None
    everywhere = gather_objects((result, known and (known.errno, known.strerror, known.filename)))
    raise_together(failure if known is None else None)
    for _, named in everywhere:
        if named is not None:
            raise OSError(*named) from failure
    return [entry for entry, _ in everywhere]
