"""Which process of the run this is, under any launcher.

Notable: `accelerate launch`, `torchrun` and our SLURM launcher all set RANK, WORLD_SIZE,
LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT; that is all this file reads. Without them
the world has one process, and nothing is initialised.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class World:
    """This process's place among the processes of the run."""

    rank: int
    size: int
    local_rank: int
    local_size: int = 1
    """Processes of the run on this machine, among which its cores are divided."""

    @property
    def is_main(self) -> bool:
        """True on the one rank that writes logs, certificates and manifests."""
        return self.rank == 0


def current_world() -> World:
    """The world as the launcher's environment variables describe it."""
    return World(
        rank=int(os.environ.get("RANK", 0)),
        size=int(os.environ.get("WORLD_SIZE", 1)),
        local_rank=int(os.environ.get("LOCAL_RANK", 0)),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
    )


def local_device(world: World) -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", world.local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def node_name() -> str:
    """This machine, as SLURM or else the network calls it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
