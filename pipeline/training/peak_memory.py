"""The most memory that a rank has held: what a trial says before a long run is started."""

from __future__ import annotations

import resource

import torch

from pipeline.distributed import max_over_ranks


def peak_memory(device: torch.device) -> float:
    """Most memory that any rank has held so far, in GB. A collective.

    On a GPU what torch allocated there; elsewhere the process's resident memory.
    """
    if device.type == "cuda":
        size = torch.cuda.max_memory_allocated(device)
    else:
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max_over_ranks(torch.tensor(size / 1e9, dtype=torch.float64, device=device)).item()
