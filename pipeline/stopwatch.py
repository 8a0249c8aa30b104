"""Where the time of a step goes, on this rank: data, forward, Lipschitz, backward, optimizer, ...

Notable:
- At every moment one part runs: a part inside another interrupts it, so that parts add up to the
  whole and nothing is counted twice.
- One stopwatch at a time is active, as with a profiler: a layer or a collective says `part(...)`
  and knows nothing of who measures. Without an active one that costs nothing and does nothing.
- On a GPU the boundaries are CUDA events, which cost microseconds and make the host wait for
  nothing; `take` reads those that the GPU has passed and leaves the others for the next call.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, TypeVar

import torch

T = TypeVar("T")

PARTS = ("data", "forward", "lipschitz", "backward", "communication", "optimizer")
"""Parts of a training step, as metrics.jsonl and TensorBoard name them."""

OTHER = "other"
"""What is in no part: validation, saving, writing the record."""


class Stopwatch:
    """Divides the time since it was made among parts.

    Args:
        device: of the model; its queue is what is timed on a GPU.
        clock: seconds of the host, for a device without events.
    """

    active: ClassVar[Stopwatch | None] = None
    """The one that `part` and `mark` of this module speak to."""

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._on_gpu = device.type == "cuda"
        # Where the model computes: inside DeepSpeed's hooks the current stream may be another, on
        # which messages travel beside the computation.
        self._stream = torch.cuda.current_stream(device) if self._on_gpu else None
        self._clock = clock
        self._running = [OTHER]
        self._marks: list[tuple[Any, str]] = []
        self.mark()

    @contextmanager
    def running(self) -> Iterator[Stopwatch]:
        """Be the active one. Of one thread only."""
        before, Stopwatch.active = Stopwatch.active, self
        try:
            yield self
        finally:
            Stopwatch.active = before

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time inside belongs to `name`, and not to the part around it."""
        self._running.append(name)
        self.mark()
        try:
            yield
        finally:
            self._running.pop()
            self.mark()

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Iterate, the waiting for every item being of part `name`."""
        iterator = iter(items)
        while True:
            try:
                with self.part(name):
                    item = next(iterator)
            except StopIteration:
                return
            yield item

    def take(self) -> dict[str, float]:
        """Seconds by part since the last call, of what the device has finished."""
        self.mark()
        seconds: dict[str, float] = defaultdict(float)
        while len(self._marks) > 1:
            (start, name), (stop, _) = self._marks[:2]
            if self._on_gpu:
                if not stop.query():
                    break
                seconds[name] += start.elapsed_time(stop) / 1000
            else:
                seconds[name] += stop - start
            del self._marks[0]
        return dict(seconds)

    def mark(self) -> None:
        """Begin a new stretch of the part that runs, see `since_mark`."""
        if self._on_gpu:
            now: Any = torch.cuda.Event(enable_timing=True)
            now.record(self._stream)
        else:
            now = self._clock()
        self._marks.append((now, self._running[-1]))

    def since_mark(self, name: str) -> None:
        """The time since the last mark turns out to have been of part `name`."""
        self._marks[-1] = (self._marks[-1][0], name)
        self.mark()


def part(name: str) -> AbstractContextManager[None]:
    """Time inside belongs to `name`, if anybody measures."""
    watch = Stopwatch.active
    return nullcontext() if watch is None else watch.part(name)


def mark() -> None:
    """`Stopwatch.mark`, if anybody measures."""
    if Stopwatch.active is not None:
        Stopwatch.active.mark()


def since_mark(name: str) -> None:
    """`Stopwatch.since_mark`, if anybody measures."""
    if Stopwatch.active is not None:
        Stopwatch.active.since_mark(name)
