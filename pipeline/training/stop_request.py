"""Signals that ask a run to leave: finish the step, save, go. Which one it was is remembered.

Notable:
- A handler only makes a note. What follows (saving is a collective) is done by the loop, on all
  ranks after the same step; a signal that reached one rank of many is enough.
- SIGUSR2 is what SLURM is told to send before it takes a job away, SIGTERM what it and every
  launcher send; SIGINT is Ctrl-C, of which a second one, later, leaves at once.
- torchrun and accelerate pass on the Ctrl-C that the terminal may have sent to every process
  already, so what comes shortly after the first is the first again.
- Handlers that another library installed before (submitit's requeue from inside the signal) are
  out of force for as long as ours are, and put back afterwards.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.distributed import departed

SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
ECHO_SECONDS = 2.0


class StopRequestedError(BaseException):
    """Work that is no training step was left at a good place, because somebody asked for it.

    Like KeyboardInterrupt it is no `Exception`: whoever turns the error of one rank into one of
    all must let it pass, since leaving is done without collectives.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        """As `StopRequest.what`."""
        super().__init__(what)


class StopRequest:
    """Whether this process was asked to leave, and by what.

    A rank that left alone has asked the others too, since they will miss it.
    """

    def __init__(self) -> None:
        self._signal: str | None = None
        self._interrupted: float | None = None

    @property
    def what(self) -> str | None:
        """Such as "signal SIGUSR2"; None as long as nobody asked."""
        return self._signal or departed()

    def __call__(self) -> bool:
        """Whether somebody asked."""
        return self.what is not None

    def leave_if_asked(self) -> None:
        """Call between two pieces of work that are safe on disk.

        Raises:
            StopRequestedError: somebody asked.
        """
        if (what := self.what) is not None:
            raise StopRequestedError(what)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if self._signal is None:
            self._signal = f"signal {signal.Signals(number).name}"
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
        elif now - self._interrupted > ECHO_SECONDS:
            raise KeyboardInterrupt


_active: StopRequest | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn signals into a request for as long as this lasts.

    Signals belong to the whole process: inside another `stop_requests` it yields that one's
    request. Outside the main thread, where Python allows no handlers, none ever comes.
    """
    global _active
    if _active is not None:
        yield _active
        return
    request, before = StopRequest(), dict[signal.Signals, Any]()
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, request.note) for number in SIGNALS}
    _active = request
    try:
        yield request
    finally:
        _active = None
        for number, handler in before.items():
            # None: installed by C code, which cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
