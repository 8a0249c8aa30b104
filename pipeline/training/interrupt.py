"""Ctrl-C at a terminal: finish the step, save, leave. A second one, later, leaves at once.

Notable: torchrun and accelerate pass on the Ctrl-C that the terminal may have sent to every process
already, so what comes shortly after the first is the first again.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ECHO_SECONDS = 2.0


@contextmanager
def interrupt_as_request() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT into a request.

    Yields:
        Whether there was one. Ask after every step.
    """
    first: float | None = None

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
        elif now - first > ECHO_SECONDS:
            raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if in_main_thread:  # Python lets no other thread set a handler
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: first is not None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, before)
