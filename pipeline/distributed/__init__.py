"""Ranks and collectives, for one process and for many, under any launcher."""

from pipeline.distributed.collectives import (
    barrier,
    broadcast_object,
    gather_objects,
    max_over_ranks,
    raise_together,
    sum_over_ranks,
)
from pipeline.distributed.world import World, current_world, local_device, start, stop

__all__ = [
    "World",
    "barrier",
    "broadcast_object",
    "current_world",
    "gather_objects",
    "local_device",
    "max_over_ranks",
    "raise_together",
    "start",
    "stop",
    "sum_over_ranks",
]
