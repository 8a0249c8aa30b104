"""Collectives; with one process each is the identity. Their time is `communication`."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from pipeline.stopwatch import part

COMMUNICATION = "communication"


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


def raise_together(error: Exception | None) -> None:
    """Make an error of one rank the error of all, so that none is left waiting in a collective.

    Every rank calls it at the same point with its own error or None. The rank that failed raises
    its own; the others raise a RuntimeError that names the first failed rank.
    """
    failures = gather_objects(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for rank, failure in enumerate(failures):
        if failure is not None:
            raise RuntimeError(f"rank {rank} failed: {failure}")
