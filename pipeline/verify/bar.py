"""A progress bar on stderr, on terminals only; its own, for the verifier shares nothing."""

from __future__ import annotations

import sys
import time

WIDTH = 30
SECONDS_BETWEEN_DRAWINGS = 0.2


class Bar:
    """Redraws one line for whatever step is under way; `close` erases it."""

    def __init__(self) -> None:
        self._drawn = 0.0
        self._what = ""
        self._began = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of the step `what` are finished."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._began = what, now
        if not sys.stderr.isatty() or now - self._drawn < SECONDS_BETWEEN_DRAWINGS:
            return
        self._drawn = now
        share = min(done / max(total, 1), 1.0)
        left = (now - self._began) * (1 - share) / share if share > 0 else 0.0
        filled = "#" * int(WIDTH * share)
        label = ascii(what)[1:31]  # layer names come from the file that is under suspicion
        sys.stderr.write(f"\r\033[K{label:<30} [{filled:<{WIDTH}}] {share:4.0%}, {left:.0f} s left")
        sys.stderr.flush()

    def close(self) -> None:
        """Erase the line."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
