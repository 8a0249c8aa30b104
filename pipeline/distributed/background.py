"""A job in a thread, whose result or error is taken when it is done; rank 0's, while others wait.

Notable:
- The thread is a daemon. A process that is left in a hurry does not wait for a slow disk; what was
  being written is then lost, never half visible.
- It is as urgent as training. A less urgent one (`nice`) did not make steps shorter, took fifteen
  times as long on a machine with other work, and a step waits for it whenever it holds Python's
  lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pipeline.distributed.collectives import broadcast_object, together
from pipeline.distributed.world import current_world

T = TypeVar("T")
SECONDS_BETWEEN_MEETINGS = 5.0


class Background(Generic[T]):
    """Runs a job at once, in a thread of its own.

    Args:
        job: makes no collective.
    """

    def __init__(self, job: Callable[[], T]) -> None:
        self._job: Callable[[], T] | None = job
        self._result: T | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="certline-background", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """It is not done yet."""
        return self._thread.is_alive()

    def result(self) -> T:
        """Wait for the job; what it returned, or raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def _run(self) -> None:
        """The thread."""
        job, self._job = self._job, None  # what it holds (a copy of the weights) ends with it
        assert job is not None, "a thread runs once"
        try:
            self._result = job()
        except Exception as error:
            self._error = error


def together_while(
    job: Callable[[], T], leave_if_asked: Callable[[], None] = lambda: None
) -> T | None:
    """Rank 0's job, for however long: the others meet it every few seconds. A collective.

    Args:
        job: done in a thread; makes no collective.
        leave_if_asked: called at each meeting; leaves by raising what is no `Exception`, and the
            job is then left undone.

    Returns:
        Its result on rank 0; None on the others.

    Raises:
        Exception: what the job raises; on the other ranks a RankFailedError.
    """
    world = current_world()
    work = Background(job) if world.is_main else None
    pause = 0.02
    while broadcast_object(work is not None and work.busy):
        leave_if_asked()
        time.sleep(pause)
        pause = min(2 * pause, SECONDS_BETWEEN_MEETINGS if world.size > 1 else 0.05)
    with together():
        return None if work is None else work.result()
    return None
