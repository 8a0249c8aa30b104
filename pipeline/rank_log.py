"""Each rank's own log, RUN/logs/rank_0003.log: what it said, warned of and ended with.

Notable:
- Every line has the time (UTC), the rank and the node, so that the logs of all ranks can be put
  together with `sort`. Starts of the same run are appended.
- The screen shows what rank 0 says; here is also what the others would have said.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from pathlib import Path
from typing import TextIO

from pipeline.distributed import current_world, node_name

LOGGER = logging.getLogger("certline")
"""Takes what goes into the log; without an open log it goes nowhere."""
LOGGER.addHandler(logging.NullHandler())

_open: logging.FileHandler | None = None
_show = warnings.showwarning


class _EveryLine(logging.Formatter):
    """Time, rank and node before every line of a message, those of a traceback too."""

    def __init__(self) -> None:
        super().__init__()
        self._place = f"rank {current_world().rank} {node_name()}"

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = f"{moment}.{int(record.msecs):03d}Z {self._place} "
        return "\n".join(head + line for line in super().format(record).splitlines() or [""])


def log_path(directory: Path, rank: int) -> Path:
    """Where the log of a rank lies."""
    return directory / "logs" / f"rank_{rank:04d}.log"


def open_rank_log(directory: Path) -> None:
    """Keep this rank's log in the run directory, which exists, from here on.

    Raises:
        OSError: it cannot be written.
    """
    global _open
    close_rank_log()
    world = current_world()
    path = log_path(directory, world.rank)
    path.parent.mkdir(exist_ok=True)
    _open = logging.FileHandler(path, encoding="utf-8")
    _open.setFormatter(_EveryLine())
    LOGGER.addHandler(_open)
    LOGGER.setLevel(logging.INFO)
    warnings.showwarning = _show_and_log
    LOGGER.info("starts as process %d, one of %d ranks", os.getpid(), world.size)


def close_rank_log() -> None:
    """Close the log, if one is open."""
    global _open
    if _open is not None:
        warnings.showwarning = _show
        LOGGER.removeHandler(_open)
        _open.close()
        _open = None


def _show_and_log(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """`warnings.showwarning` while a log is open."""
    LOGGER.warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)
    _show(message, category, filename, lineno, file, line)
