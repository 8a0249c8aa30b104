"""The folder of one submission: its code, its config, and what became of every attempt.

    jobs/001/
      config.yaml  job.json         what was submitted
      code/                         the copy of the code that the tasks run from
      1234_submission.sh ...        submitit's: script, pickle, what srun itself says
      attempts/1234.0/0003.log      all that rank 3 printed in job 1234 before its first requeue
      attempts/1234.0/0003.status   its exit status, if it lived to tell
      history.jsonl                 submissions, and how each attempt was judged

Notable: a rank that left no status was killed. srun's own status tells little: of ranks that ended
differently it reports the largest number, and of those that it killed itself SIGTERM's.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JobFolder:
    """Reads and writes the folder of one submission."""

    path: Path

    @classmethod
    def make(cls, parent: Path) -> JobFolder:
        """The next numbered folder in `parent`.

        Raises:
            OSError: it cannot be written.
        """
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder = cls.next_in(parent)
            try:
                folder.path.mkdir()
            except FileExistsError:  # somebody else was faster
                continue
            (folder.path / "attempts").mkdir()
            return folder

    @classmethod
    def next_in(cls, parent: Path) -> JobFolder:
        """The folder that `make` would make."""
        last = cls.all_in(parent)
        return cls(parent / f"{int(last[-1].path.name) + 1 if last else 1:03d}")

    @classmethod
    def all_in(cls, parent: Path) -> list[JobFolder]:
        """All submissions, the oldest first."""
        if not parent.is_dir():
            return []
        numbers = sorted(int(path.name) for path in parent.iterdir() if path.name.isdigit())
        return [cls(parent / f"{number:03d}") for number in numbers]

    @property
    def config(self) -> Path:
        """The config as submitted."""
        return self.path / "config.yaml"

    @property
    def code(self) -> Path:
        """The copy of the code."""
        return self.path / "code"

    def describe(self, **facts: Any) -> None:
        """Write job.json."""
        (self.path / "job.json").write_text(json.dumps(facts, indent=1) + "\n")

    def facts(self) -> dict[str, Any]:
        """What `describe` wrote."""
        facts: dict[str, Any] = json.loads((self.path / "job.json").read_text())
        return facts

    def log(self, attempt: str, rank: int) -> Path:
        """Where a rank of an attempt prints to."""
        return self.path / "attempts" / attempt / f"{rank:04d}.log"

    def write_status(self, attempt: str, rank: int, status: int) -> None:
        """A rank's last word."""
        path = self.log(attempt, rank).with_suffix(".status")
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(f"{status}\n")
        temporary.replace(path)

    def statuses(self, attempt: str) -> dict[int, int]:
        """Exit status by rank, of those that left one.

        Looked for by name: a file server may show an old listing for a minute.
        """
        ranks = range(self.facts()["tasks"])
        found = {rank: self.status(attempt, rank) for rank in ranks}
        return {rank: status for rank, status in found.items() if status is not None}

    def status(self, attempt: str, rank: int) -> int | None:
        """The exit status of one rank; None if it left none."""
        try:
            return int(self.log(attempt, rank).with_suffix(".status").read_text())
        except FileNotFoundError:
            return None

    def record(self, event: str, **facts: Any) -> None:
        """Append a row to history.jsonl, on disk when this returns."""
        row = {"event": event, "time": round(time.time(), 3), **facts}
        with (self.path / "history.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[dict[str, Any]]:
        """The rows so far; without one that is just being written."""
        path = self.path / "history.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def job(self) -> str | None:
        """The id of the newest job of this submission; None before there was one."""
        return next((row["job"] for row in reversed(self.history()) if "job" in row), None)


def attempt_name(job: str, restarts: int) -> str:
    """An attempt is one start of all ranks: of a job, after so many requeues."""
    return f"{job}.{restarts}"
