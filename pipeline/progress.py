"""Progress bars and messages, on rank 0 only.

Notable: a bar on a terminal is redrawn in place (tqdm); where the output is a file or a pipe (a
SLURM log, CI) a line is printed at most every ten seconds, so that logs stay readable.
"""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

from pipeline.distributed import current_world
from pipeline.rank_log import LOGGER

SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """Print one line on rank 0, above any bar that is being drawn; every rank logs it."""
    LOGGER.info(message)
    if current_world().is_main:
        tqdm.write(message, file=sys.stdout)
        sys.stdout.flush()


class ProgressBar:
    """A bar with rate, time left and named numbers. Silent on ranks other than 0.

    Example:
        with ProgressBar("certify", total=50_000, unit="img") as bar:
            for block in blocks:
                ...
                bar.advance(len(block), vra="70.1 %")
    """

    def __init__(self, title: str, total: int | None, unit: str = "it", initial: int = 0) -> None:
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=initial,
            unit=unit,
            unit_scale=unit == "B",
            disable=not current_world().is_main,
            dynamic_ncols=terminal,
            ncols=None if terminal else 110,
            mininterval=0.1 if terminal else SECONDS_BETWEEN_LINES,
            leave=True,
        )

    def advance(self, count: int = 1, **numbers: str) -> None:
        """Count `count` more, and show `numbers` behind the bar."""
        if numbers:
            self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(count)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
