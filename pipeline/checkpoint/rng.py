"""Torch's random generators of every rank, as tensors for a checkpoint.

Notable: nothing random in training depends on them today (order and augmentation are functions of
seed, epoch and sample id, and the same on any number of ranks). They are kept so that a layer that
does draw, dropout say, resumes exactly too. A rank that the saving run did not have keeps its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.checkpoint.fragments import SavedState
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


def restore_rng_state(saved: SavedState, rank: int) -> None:
    """Set this rank's generators to what the part "rng" has for them, if it has any."""
    names = saved.names("rng")
    if f"rank{rank}.cpu" in names:
        torch.set_rng_state(saved.whole("rng", f"rank{rank}.cpu"))
    if f"rank{rank}.cuda" in names and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved.whole("rng", f"rank{rank}.cuda"))
