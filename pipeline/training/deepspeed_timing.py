"""DeepSpeed's collectives are `communication` for the stopwatch.

Notable: ZeRO exchanges gradients and weights inside forward, backward and step; seen from outside
they could not be told from computing. What is timed is what the device waits for: a message that
runs beside the computation costs only the end that it does not hide.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from pipeline.stopwatch import part

COLLECTIVES = (
    "all_gather",
    "all_gather_base",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_reduce",
    "all_reduce_coalesced",
    "broadcast",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
)


class _TimedHandle:
    """A collective under way, the waiting for which is timed."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def wait(self, *arguments: Any, **options: Any) -> Any:
        with part("communication"):
            return self._work.wait(*arguments, **options)


def time_collectives(backend: Any) -> None:
    """Wrap the collectives of DeepSpeed's backend object (`deepspeed.comm.comm.cdb`), once."""
    for name in COLLECTIVES:
        if name not in vars(backend):  # not of an earlier engine in this process
            setattr(backend, name, _timed(getattr(backend, name)))


def _timed(collective: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(collective)
    def timed(*arguments: Any, **options: Any) -> Any:
        with part("communication"):
            handle = collective(*arguments, **options)
        return _TimedHandle(handle) if hasattr(handle, "wait") else handle

    return timed
