"""Bit-identical runs: what torch must be told, once, before the model is built.

Notable: on a CPU the results also depend on the number of threads (OMP_NUM_THREADS, or the cores),
which is left as it is: runs are bit-identical on one machine with one setting of it.
"""

from __future__ import annotations

import os

import torch


def make_deterministic(seed: int) -> None:
    """Seed torch, and choose algorithms that give the same bits in every run; no TF32."""
    # Read by cuBLAS when it starts; without it torch refuses matrix products below.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
