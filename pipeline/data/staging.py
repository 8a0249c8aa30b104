"""Copying .beton files to a disk of the node before they are read: `data.stage`.

Notable:
- One process a node copies and the others wait for its lock, also those of another job: a file is
  copied once, and a finished copy of the same file is used again by the next run.
- No process sits in a collective for as long as the copying takes: its own part is a thread's work,
  and the ranks tell each other every second how far they are. Nodes may so differ by hours without
  a time-out, and the failure of one ends all at once.
- A copy has its final name only when it is whole and, if the data card names the file's sha256, has
  been found equal to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
import time
from pathlib import Path

from pipeline import distributed
from pipeline.data.betons.files import read_card
from pipeline.data.betons.format import card_path
from pipeline.progress import ProgressBar

PIECE = 16 * 2**20
_SECONDS_BETWEEN_REPORTS = 1.0


def staged(spec: str, folder: str | None) -> str:
    """The same data on this node's disk. A collective: every rank calls it with the same arguments.

    Args:
        spec: a dataset spec; only .beton files are copied, others are returned as they are.
        folder: `data.stage`, with environment variables; None leaves the file where it is.

    Raises:
        ValueError: the folder cannot be used, is too small, or the file is damaged.
    """
    if folder is None or not spec.endswith(".beton"):
        return spec
    work = _Copying(Path(spec), folder)
    work.start()
    with ProgressBar(f"stage {Path(spec).name}", total=work.size or None, unit="B") as bar:
        shown = 0
        while True:
            finished = not work.is_alive()
            bar.advance(work.copied - shown)
            shown = work.copied
            if any(distributed.gather_objects(finished and work.error is not None)):
                distributed.raise_together(work.error if finished else None)
            if all(distributed.gather_objects(finished)):
                return str(work.result)
            time.sleep(_SECONDS_BETWEEN_REPORTS if work.size > PIECE else 0.01)


class _Copying(threading.Thread):
    """This process's part of the work; `result` or `error` when it is done."""

    def __init__(self, source: Path, folder: str) -> None:
        super().__init__(name="certline-stage", daemon=True)
        self.source, self.folder = source, folder
        self.size = source.stat().st_size if source.is_file() else 0
        self.copied = 0
        self.result: Path | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Copy, or wait until somebody else has."""
        try:
            self.result = self._copy()
        except OSError as error:
            self.error = ValueError(
                f"data.stage {self.folder}: {self.source} cannot be copied there ({error})"
            )
        except Exception as error:
            self.error = error

    def _copy(self) -> Path:
        folder = _expanded(self.folder)
        facts = self.source.stat()
        version = f"{self.source.resolve()} {facts.st_size} {facts.st_mtime_ns}"
        digest = hashlib.sha256(version.encode()).hexdigest()[:12]
        target = folder / f"{self.source.stem}-{digest}.beton"
        folder.mkdir(parents=True, exist_ok=True)
        with target.with_name(target.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits for whoever copies it already
            if not target.is_file():
                self._require_room(folder)
                card = card_path(self.source)
                if card.is_file():
                    shutil.copyfile(card, card_path(target))
                named = read_card(self.source, of_any_length=True).get("file_sha256")
                self._copy_checked(target, named if isinstance(named, str) else None)
        self.copied = self.size
        return target

    def _copy_checked(self, target: Path, sha256: str | None) -> None:
        partial = target.with_name(target.name + ".partial")
        digest = hashlib.sha256()
        try:
            with self.source.open("rb") as source, partial.open("wb") as copy:
                while piece := source.read(PIECE):
                    copy.write(piece)
                    if sha256 is not None:
                        digest.update(piece)
                    self.copied += len(piece)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise ValueError(
                    f"{self.source} is not the file that its data card speaks of (its sha256 "
                    "differs): write it again with tools/write_beton.py"
                )
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _require_room(self, folder: Path) -> None:
        free = shutil.disk_usage(folder).free
        if self.size > free:
            raise ValueError(
                f"data.stage {self.folder}: {self.source} has {self.size / 1e9:.1f} GB and only "
                f"{free / 1e9:.1f} GB are free: choose another folder or leave the key out"
            )


def _expanded(folder: str) -> Path:
    expanded = os.path.expandvars(folder)
    if "$" in expanded:
        raise ValueError(
            f"data.stage {folder} names a variable that is not set here: set it, or name a folder"
        )
    return Path(expanded).expanduser()
