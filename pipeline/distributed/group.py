"""Joining the other processes of a run, leaving with them, and what happens if one is lost."""

from __future__ import annotations

import atexit
import os
import resource
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

from pipeline.distributed.collectives import barrier
from pipeline.distributed.heartbeat import Heartbeat, LastWords
from pipeline.distributed.star import connect
from pipeline.distributed.world import World, current_world, local_device, node_name

COLLECTIVE_TIMEOUT = 600.0
SILENCE = 60.0
# How gloo words the end of a peer; torch has no exception class for it.
_OF_LOST_PEERS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo")

_heartbeat: Heartbeat | None = None
_timeout = timedelta(seconds=COLLECTIVE_TIMEOUT)


class RendezvousError(RuntimeError):
    """The processes of the run did not find one another."""


def start(silence: float = SILENCE, collective_timeout: float = COLLECTIVE_TIMEOUT) -> World:
    """Join the process group (nccl with GPUs, gloo without). Harmless when called again.

    Args:
        silence: seconds without a sign of life after which a rank is lost, which ends the attempt
            on all others (`heartbeat.py`).
        collective_timeout: seconds after which a rank gives up waiting in one collective.

    Raises:
        RendezvousError: the other processes did not come.
    """
    global _heartbeat, _timeout
    world = current_world()
    if world.size == 1 or dist.is_initialized():
        return world
    device = local_device(world)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Of several hundred ranks, rank 0 has some sockets to each; the usual limit is 1024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _timeout = timedelta(seconds=collective_timeout)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=_timeout,
        )
        node = node_name()
        _heartbeat = Heartbeat(world.rank, node, connect(world, node), silence, collective_timeout)
    except (RuntimeError, OSError) as error:
        address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
        raise RendezvousError(
            f"rank {world.rank} on {node_name()} did not find the other {world.size - 1} processes "
            f"at {address}:{port} ({_first_line(error)}): see that all were started, that this "
            "address is the first node's and that no other job uses this port there"
        ) from error
    _heartbeat.start()
    # A thread that is still in its work when Python ends can bring the process down.
    atexit.register(_heartbeat.stop)
    return world


def group_of_all() -> dist.ProcessGroup:
    """Another group of all ranks, for a library that wants its own. A collective.

    torch would give it another timeout than the first one has.
    """
    group = dist.new_group(timeout=_timeout)
    assert isinstance(group, dist.ProcessGroup), "every rank is a member"
    return group


def stop() -> None:
    """Leave the process group, if one was joined, when all ranks are finished. A collective."""
    global _heartbeat
    if not dist.is_initialized():
        return
    barrier()
    if _heartbeat is not None:
        atexit.unregister(_heartbeat.stop)
        _heartbeat.stop()
        _heartbeat = None
    dist.destroy_process_group()


def leave_alone(what: str, status: int, on_request: bool = False) -> None:
    """Tell the other ranks that this one ends, without a collective. End the process after it.

    Args:
        what: goes on after "rank 3 on node7", such as "left on signal SIGTERM".
        status: exit status of this rank, and of the others.
        on_request: the others reach a good place first; else they end at once.
    """
    if _heartbeat is not None:
        _heartbeat.leave(what, status, on_request)


def departed() -> str | None:
    """The sentence of another rank that left alone on request; this one should leave as well."""
    return None if _heartbeat is None else _heartbeat.departed


def before_a_sudden_end(last_words: LastWords) -> None:
    """Have `last_words(sentence, exit status)` called if the loss of a rank ends this process."""
    if _heartbeat is not None:
        _heartbeat.last_words.append(last_words)


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another rank did not take part in it."""
    if not dist.is_initialized() or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(words in str(error) for words in _OF_LOST_PEERS)


def end_for_lost_peer(error: BaseException) -> NoReturn:
    """After `is_lost_peer`: find out who is lost, say so, and end the process."""
    assert _heartbeat is not None, "only a group that `start` joined has a lost peer"
    _heartbeat.lost(_first_line(error))


def _first_line(error: BaseException) -> str:
    """Torch appends pages of addresses to its messages."""
    return str(error).strip().partition("\n")[0]
