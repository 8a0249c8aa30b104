"""Signals that ask a sweep to end: Ctrl-C, SIGTERM, a lost terminal.

Notable: jobs that a script starts with `&` ignore SIGINT, and hand that on to what they start. Here
it is never ignored, so the runs of a sweep in the background can be interrupted as well.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class StopRequests:
    """Counts the signals inside a `with`; nothing else happens to the program."""

    def __init__(self) -> None:
        self._count = self._seen = 0
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether there was one."""
        return self._count > 0

    def is_new(self) -> bool:
        """Whether there was one since this was asked last."""
        new, self._seen = self._count > self._seen, self._count
        return new

    def __enter__(self) -> StopRequests:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            by_nohup = number == signal.SIGHUP and handler is signal.SIG_IGN
            if not by_nohup:
                self._before[number] = handler
                signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
