"""Collectives; with one process each is the identity. Their time is `communication`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from pipeline.stopwatch import part

COMMUNICATION = "communication"
T = TypeVar("T")


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        with part(COMMUNICATION):
            dist.barrier()


def gather_objects(value: Any) -> list[Any]:
    """Every rank's `value`, in order of rank, on every rank. For small things only."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    with part(COMMUNICATION):
        dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """Rank 0's `value` on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    with part(COMMUNICATION):
        dist.broadcast_object_list(box, src=0)
    return box[0]


def my_share(count: int) -> range:
    """Those of `count` pieces of work that are this rank's when all ranks divide them."""
    if not dist.is_initialized():
        return range(count)
    return range(dist.get_rank(), count, dist.get_world_size())


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of `tensor` over all ranks, in place, on every rank."""
    if dist.is_initialized():
        with part(COMMUNICATION):
            dist.all_reduce(tensor)
    return tensor


def max_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The elementwise largest of `tensor` over all ranks, in place, on every rank."""
    if dist.is_initialized():
        with part(COMMUNICATION):
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


_KNOWN = "known_to_all_ranks"
"""An attribute of errors that all ranks have learnt of."""


class RankFailedError(RuntimeError):
    """Another rank failed, at a point where all ranks learn of it."""

    def __init__(self, rank: int, failure: str, is_mistake: bool, errno: int | None = None) -> None:
        self.is_mistake = is_mistake
        """It failed with a ValueError or OSError: a sentence for the user, and no defect."""
        self.errno = errno
        """Of its OSError."""
        super().__init__(f"rank {rank} failed: {failure}")


def raise_together(error: Exception | None) -> None:
    """Make an error of one rank the error of all, so that none is left waiting in a collective.

    Every rank calls it at the same point with its own error or None. The rank that failed raises
    its own; the others raise a RankFailedError that names the first failed rank. What all ranks
    have learnt of once is raised again without asking them: one may have met the others inside
    what the failed one was called from.
    """
    if error is not None and getattr(error, _KNOWN, False):
        raise error
    mine = None
    if error is not None:
        is_mistake = isinstance(error, ValueError | OSError)
        mine = (f"{type(error).__name__}: {error}", is_mistake, getattr(error, "errno", None))
    failures = gather_objects(mine)
    for rank, failure in enumerate(failures):
        if failure is not None:
            known = error or RankFailedError(rank, *failure)
            setattr(known, _KNOWN, True)
            raise known


def on_main(function: Callable[[], T]) -> T:
    """Rank 0's result on every rank; its failure is the failure of all."""
    results: list[T] = []
    with together():
        if not dist.is_initialized() or dist.get_rank() == 0:
            results.append(function())
    result: T = broadcast_object(results[0] if results else None)
    return result


@contextmanager
def together() -> Iterator[None]:
    """An error of one rank inside the `with` is raised on all at its end (`raise_together`)."""
    error: Exception | None = None
    try:
        yield
    except Exception as failure:
        error = failure
    raise_together(error)
