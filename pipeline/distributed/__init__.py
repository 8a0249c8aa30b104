"""Ranks and collectives, for one process and for many, under any launcher."""

from pipeline.distributed.background import Background, together_while
from pipeline.distributed.collectives import (
    RankFailedError,
    barrier,
    broadcast_object,
    gather_objects,
    max_over_ranks,
    my_share,
    on_main,
    raise_together,
    sum_over_ranks,
    together,
)
from pipeline.distributed.group import (
    RendezvousError,
    before_a_sudden_end,
    departed,
    end_for_lost_peer,
    group_of_all,
    is_lost_peer,
    leave_alone,
    start,
    stop,
)
from pipeline.distributed.world import World, current_world, local_device, node_name

__all__ = [
    "Background",
    "RankFailedError",
    "RendezvousError",
    "World",
    "barrier",
    "before_a_sudden_end",
    "broadcast_object",
    "current_world",
    "departed",
    "end_for_lost_peer",
    "gather_objects",
    "group_of_all",
    "is_lost_peer",
    "leave_alone",
    "local_device",
    "max_over_ranks",
    "my_share",
    "node_name",
    "on_main",
    "raise_together",
    "start",
    "stop",
    "sum_over_ranks",
    "together",
    "together_while",
]
