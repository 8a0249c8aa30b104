"""Torch's random generators of every rank, as tensors for a checkpoint.

Notable: nothing random in training depends on them today (order and augmentation are functions of
seed, epoch and sample id, and the same on any number of ranks). They are kept so that a layer that
does draw, dropout say, resumes exactly too. A rank that the saving run did not have keeps its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.distributed import gather_objects


def gather_rng_states() -> dict[str, Tensor]:
    """{"rank0.cpu": uint8 [n], "rank0.cuda": …, "rank1.cpu": …}. A collective: every rank calls."""
    mine = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        mine["cuda"] = torch.cuda.get_rng_state()
    return {
        f"rank{rank}.{device}": state
        for rank, states in enumerate(gather_objects(mine))
        for device, state in states.items()
    }


def restore_rng_state(tensors: dict[str, Tensor], rank: int) -> None:
    """Set this rank's generators to what `gather_rng_states` found, where it found any."""
    if (cpu := tensors.get(f"rank{rank}.cpu")) is not None:
        torch.set_rng_state(cpu)
    cuda = tensors.get(f"rank{rank}.cuda")
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
