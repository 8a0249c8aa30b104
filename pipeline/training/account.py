"""What became of a run's time: restarts, time lost, and the share of wall time that trained.

Notable: from attempts.jsonl, which says when each attempt began and at which step, and from
metrics.jsonl, which holds the seconds of exactly those steps that counted: a resume cuts away the
rows of steps that it makes again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.training.attempts import read_attempts


@dataclass(frozen=True)
class Account:
    """The time of a run's training, up to its last row of metrics."""

    restarts: int
    """Starts after the first, of those that were not refused."""
    wall_seconds: float
    """From the first start to the last row of metrics, queues and nights included."""
    trained_seconds: float
    """Of the steps that counted: steps of the run, times the mean of their recorded seconds."""
    lost_seconds: float
    """Between the starts of an interrupted attempt and of the next one, all but the steps that
    counted: steps made again, starting up, waiting for the queue, validations and saves."""

    @property
    def share(self) -> float:
        """Of the wall time, what trained."""
        return min(self.trained_seconds / self.wall_seconds, 1.0) if self.wall_seconds > 0 else 0.0

    def sentence(self) -> str:
        """All of it, for people."""
        restarts = f"{self.restarts} restart{'' if self.restarts == 1 else 's'}"
        return (
            f"{self.share:.1%} of {duration(self.wall_seconds)} trained; {restarts}, "
            f"{duration(self.lost_seconds)} lost to them"
        )

    def facts(self) -> list[tuple[str, str]]:
        """The same for a table."""
        return [
            ("wall time from the first start", duration(self.wall_seconds)),
            ("of which steps that counted", f"{duration(self.trained_seconds)} ({self.share:.1%})"),
            ("restarts", str(self.restarts)),
            ("time lost to them", duration(self.lost_seconds)),
        ]


def account_of(directory: Path) -> Account | None:
    """The account of a run; None where nothing is recorded, as in runs of older versions."""
    metrics = directory / "metrics.jsonl"
    starts = [
        past.start
        for past in read_attempts(directory)
        if past.end is None or past.end["reason"] != "refused"
    ]
    if not starts or not metrics.exists():
        return None
    steps, seconds, rows = 0, 0.0, 0
    for line in metrics.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # torn by a kill, or just being written
            continue
        steps = max(steps, row["step"])
        if "seconds" in row:
            seconds, rows = seconds + sum(row["seconds"].values()), rows + 1
    if not rows:
        return None
    ended = metrics.stat().st_mtime  # certification, which may follow, writes no rows
    a_step = seconds / rows
    lost = 0.0
    for start, after in pairwise(starts):
        if after["time"] < ended:
            counted = (after["from_step"] - start["from_step"]) * a_step
            lost += max(after["time"] - start["time"] - counted, 0.0)
    return Account(len(starts) - 1, ended - starts[0]["time"], steps * a_step, lost)


def duration(seconds: float) -> str:
    """ "41 s", "12 min 5 s", "3 h 20 min" or "4 d 2 h"."""
    whole = round(max(seconds, 0.0))
    for unit, name, part, part_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part} {part_name}"
    return f"{whole} s"
