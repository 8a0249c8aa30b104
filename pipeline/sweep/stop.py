"""Signals that ask a sweep to end: Ctrl-C, SIGTERM, a lost terminal."""

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
            if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP, and means it
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
