"""Jobs of rank 0 that take longer than a collective may: reading a whole set, writing a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline import distributed
from pipeline.checkpoint.background import Background
from pipeline.distributed import World

T = TypeVar("T")
SECONDS_BETWEEN_MEETINGS = 5.0


def together_while(
    job: Callable[[], T], world: World, leave_if_asked: Callable[[], None] = lambda: None
) -> T | None:
    """Rank 0's job, for however long; its result on rank 0. A collective.

    All ranks meet every few seconds, so that nobody waits longer in a collective.

    Args:
        job: done in a thread; makes no collective.
        leave_if_asked: called between meetings; leaves by raising what is no `Exception`, and the
            job is then left undone.

    Raises:
        Exception: what the job raises; on the other ranks a RankFailedError.
    """
    work = Background(job) if world.is_main else None
    while distributed.broadcast_object(work is not None and work.busy):
        leave_if_asked()
        time.sleep(SECONDS_BETWEEN_MEETINGS if world.size > 1 else 0.05)
    with distributed.together():
        return None if work is None else work.result()
    return None
