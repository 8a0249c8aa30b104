"""What a person sees of a sweep: a line a run, redrawn on a terminal, appended in a log file.

Notable:
- On a terminal no line is longer than the screen is wide and the block never higher, so that the
  cursor finds back to its top; what does not fit is counted.
- In a file a line is written when a run's state changes, and once a minute for those that run.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "running", "done", "failed", "stopped"]
_FIRST_SHOWN: tuple[State, ...] = ("running", "failed", "stopped", "waiting", "done")
_SECONDS_BETWEEN_LINES = 60.0


@dataclass(frozen=True)
class Row:
    """One run."""

    name: str
    state: State
    text: str


class Display:
    """Draws rows and a last line to standard output."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn: list[str] = []
        self._states: dict[str, State] = {}
        self._lined = time.monotonic()

    def say(self, text: str) -> None:
        """Print above the rows, to stay."""
        if self._terminal:
            self._write(text.split("\n"))
            self._drawn = []
        else:
            print(text, flush=True)

    def show(self, rows: Sequence[Row], last: str) -> None:
        """Draw the state of all runs.

        Args:
            rows: of all runs, in order.
            last: the line below them.
        """
        width = max((len(row.name) for row in rows), default=0)
        if self._terminal:
            size = shutil.get_terminal_size()
            height = size.lines - 4
            lines = [_line(row, width) for row in _fitting(rows, height)]
            lines += [text for text in (_uncounted(rows, height), last) if text]
            lines = [line[: size.columns - 1] for line in lines]
            if lines != self._drawn:
                self._write(lines)
                self._drawn = lines
            return
        often = time.monotonic() - self._lined > _SECONDS_BETWEEN_LINES
        for row in rows:
            changed = self._states.get(row.name, "waiting") != row.state
            if changed or (often and row.state == "running"):
                print(_line(row, width), flush=True)
            self._states[row.name] = row.state
        if often:
            self._lined = time.monotonic()
            print(last, flush=True)

    def _write(self, lines: Sequence[str]) -> None:
        """Put lines in the place of those that are drawn, one by one: nothing flickers."""
        up = f"\x1b[{len(self._drawn)}F" if self._drawn else ""
        print(up + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J", end="", flush=True)


def _line(row: Row, width: int) -> str:
    return f"  {row.name:<{width}}  {row.state:<7}  {row.text}".rstrip()


def _fitting(rows: Sequence[Row], height: int) -> list[Row]:
    """As many rows as fit, those that run first, in their order."""
    by_interest = sorted(rows, key=lambda row: _FIRST_SHOWN.index(row.state))
    chosen = {row.name for row in by_interest[: max(height, 1)]}
    return [row for row in rows if row.name in chosen]


def _uncounted(rows: Sequence[Row], height: int) -> str:
    """`… and 12 done, 30 waiting` of the rows that do not fit."""
    shown = {row.name for row in _fitting(rows, height)}
    rest = Counter(row.state for row in rows if row.name not in shown)
    counts = ", ".join(f"{count} {state}" for state, count in rest.items())
    return f"  … and {counts}" if counts else ""
