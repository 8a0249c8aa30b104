"""The threads of a loader: batches built ahead, one batch cut among threads.

Notable:
- Decoders and kernels release the GIL, so threads are enough, and there is nothing to fork.
- What is computed never depends on the number of threads; only when it is done does.
- An error in a thread is raised where the result is taken.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from pipeline.distributed import current_world

PART = 16
"""Samples that a thread takes at a time when a batch is cut."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count(asked: int) -> int:
    """Threads for one loader: `asked`, or with 0 the cores there are, divided among local ranks."""
    cores = len(os.sched_getaffinity(0))
    return min(asked, cores) if asked else max(1, cores // current_world().local_size)


class Workers:
    """A pool of threads that lives as long as its loader."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="certline-data")

    def ahead(self, build: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`build(item)` of each item, in order; one more than there are threads is under way."""
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(self._pool.submit(build, item))
                if len(pending) > self.count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def in_parts(self, work: Callable[[slice], None], count: int) -> None:
        """`work(part)` for slices that together are range(count), several at a time."""
        parts = (slice(start, start + PART) for start in range(0, count, PART))
        for _ in self._pool.map(work, parts):
            pass

    def close(self) -> None:
        """Drop what has not begun, and wait for the threads to end."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Undo what the body does to torch's number of threads (FFCV sets it for the process)."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
