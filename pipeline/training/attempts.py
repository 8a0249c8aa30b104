"""attempts.jsonl in the run directory: every start of a run, and how it ended.

Notable:
- Rank 0 appends; a line is on the disk when the call returns. An attempt without an end was killed.
- Three attempts in a row that broke down and came no further are the last: the next start is
  refused, once. That refusal is itself a line, so whoever has mended the cause and gives the same
  command again gets three more.
- A first start that is refused before it wrote anything else leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

NAME = "attempts.jsonl"
DRAWING = "drawing.txt"
"""In the directory of a generator's run: where the task ddpm_sample keeps what it has drawn."""
PIECES = ("bounds/*.json", "products/*.json", "blocks/*.tsv")
"""Of a certificate that is being made."""
TRIES = 3
"""Attempts in a row that break down without progress, before the run is given up."""

Reason = Literal["finished", "request", "refused", "fault"]


@dataclass(frozen=True)
class Past:
    """An attempt as the file tells it."""

    start: dict[str, Any]
    end: dict[str, Any] | None
    """None: it was killed, or it goes on."""

    @property
    def broke_down(self) -> bool:
        """It was killed or lost a rank, and nobody asked for it."""
        return self.end is None or self.end["reason"] == "fault"

    @property
    def progress(self) -> tuple[int, int]:
        """Where it began, as `progress_of` has it."""
        return self.start["from_step"], self.start["from_block"]


def read_attempts(directory: Path) -> list[Past]:
    """The attempts of a run in order; a line torn by a kill is passed over."""
    path = directory / NAME
    found: list[Past] = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "start":
            found.append(Past(event, None))
        elif found and found[-1].end is None:
            found[-1] = Past(found[-1].start, event)
    return found


def progress_of(directory: Path) -> tuple[int, int]:
    """How far a run is on disk: step of the newest checkpoint, and pieces of what follows training.

    Those are certified layers and blocks, or the drawn batches of a generator, in the folder that
    `DRAWING` names.
    """
    names = (path.name.removeprefix("step_") for path in directory.glob("checkpoints/step_*"))
    step = max((int(name) for name in names if name.isdigit()), default=0)
    certificate = directory / "certificate"
    done = sum(1 for kind in PIECES for _ in certificate.glob(kind))
    drawing = directory / DRAWING
    if drawing.is_file():
        done += sum(1 for _ in Path(drawing.read_text().strip()).glob("*.images.npy"))
    return step, done


class Attempt:
    """This start of a run, on rank 0.

    Args:
        directory: the run directory; made if missing.
        nodes: of the ranks.
        world_size: number of ranks.

    Raises:
        ValueError: three attempts before it broke down without getting any further.
        OSError: the directory cannot be written.
    """

    def __init__(self, directory: Path, nodes: Sequence[str], world_size: int) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._ended = False
        self._ending = threading.Lock()
        self._made = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        before = read_attempts(directory)
        self._is_first = not before
        step, block = progress_of(directory)
        self._append(
            {
                "event": "start",
                "attempt": len(before) + 1,
                "job": os.environ.get("SLURM_JOB_ID"),
                "restart_count": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
                "nodes": list(nodes),
                "world_size": world_size,
                "time": round(time.time(), 3),
                "from_step": step,
                "from_block": block,
            }
        )
        last = before[-TRIES:]
        if len(last) == TRIES and all(p.broke_down and p.progress == (step, block) for p in last):
            what = last[-1].end["what"] if last[-1].end else "it was killed"
            sentence = (
                f"{self._path}: the last {TRIES} attempts broke down and came no further than step "
                f"{step} (the last one: {what}): find the cause in {directory / 'logs'}, mend it "
                f"and give the same command again; the run then has {TRIES} more attempts"
            )
            self.end("refused", sentence)
            raise ValueError(sentence)

    def end(self, reason: Reason, what: str) -> None:
        """Write how it ended; only the first call counts. A disk that is full is passed over.

        Any thread may call it. One that comes second returns when the first has written: the
        heartbeat ends the process right after its call.
        """
        with self._ending:
            if not self._ended:
                self._ended = True
                with suppress(OSError):
                    self._write_end(reason, what)

    def _write_end(self, reason: Reason, what: str) -> None:
        if reason == "refused" and self._is_first and not self._has_more():
            self._path.unlink()
            with suppress(OSError):
                for path in self._made:
                    path.rmdir()
            return
        self._append(
            {
                "event": "end",
                "reason": reason,
                "what": what,
                "time": round(time.time(), 3),
                "step": progress_of(self._directory)[0],
            }
        )

    def _has_more(self) -> bool:
        """Whether the run directory has anything else."""
        return any(path != self._path for path in self._directory.iterdir())

    def _append(self, event: dict[str, Any]) -> None:
        """One line, durable; behind a torn one on a line of its own."""
        with self._path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            torn = size > 0 and file.read(1) != b"\n"
            file.write(b"\n" * torn + json.dumps(event).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
