"""How certification computes: where, conventional products, one thread each, slices of one size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.distributed import World

SLICE = 64
"""Images that go through the network at a time; fixed, so that the same products are computed
whatever the machine and the number of threads."""


@contextmanager
def conventional_arithmetic() -> Iterator[None]:
    """Inside, no TF32 products and no cuDNN (which would take Winograd or FFT convolutions)."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    saved = cudnn.enabled, matmul.fp32_precision
    cudnn.enabled, matmul.fp32_precision = False, "ieee"
    try:
        yield
    finally:
        cudnn.enabled, matmul.fp32_precision = saved


@contextmanager
def single_threaded_mathematics() -> Iterator[None]:
    """Inside, torch's operations use one thread; threads of a pool must say so themselves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_name(device: torch.device) -> str:
    """What a certificate says of where it was computed."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def default_threads(world: World, device: torch.device) -> int:
    """This process's share of the machine's cores; one block at a time on a GPU."""
    if device.type == "cuda":
        return 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    return max(1, len(os.sched_getaffinity(0)) // local)
