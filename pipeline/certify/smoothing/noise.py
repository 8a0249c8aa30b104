"""Gaussian noise that is a function of (seed, image, purpose) alone.

Notable:
- Noise is drawn in chunks whose size depends on the size of the images only, each from a generator
  of its own. So neither the number of processes and threads nor a resume changes a draw.
- NumPy's Philox on the CPU (torch's generator there looks at 32 bits of its seed, and among
  millions of chunks some would be equal), torch's on a GPU: another device draws other numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

CHUNK_NUMBERS = 2**22
"""Numbers of one chunk at most: 16 MB."""
CHUNK_SAMPLES = 1000


def noisy_copies(
    image: Tensor, sigma: float, samples: int, seed: int, index: int, purpose: str
) -> Iterator[Tensor]:
    """x + N(0, σ²I), `samples` times in chunks [n, C, H, W].

    Args:
        image: x, [C, H, W] float32 in [0, 1].
        sigma: σ, in the space of the stored image.
        samples: in all.
        seed: of the whole pass.
        index: of the image in its data set.
        purpose: names independent draws for the same image apart.
    """
    chunk = max(1, min(CHUNK_SAMPLES, CHUNK_NUMBERS // image.numel()))
    for number, start in enumerate(range(0, samples, chunk)):
        key = hashlib.sha256(f"{seed}/{index}/{purpose}/{number}".encode()).digest()
        # Whole chunks: how numbers are drawn may depend on their count.
        noise = _normal((chunk, *image.shape), key, image.device)
        yield image + sigma * noise[: samples - start]


def _normal(shape: tuple[int, ...], key: bytes, device: torch.device) -> Tensor:
    """Standard normal numbers, float32."""
    if device.type == "cpu":
        bits = np.random.Philox(key=int.from_bytes(key[:16], "big"))
        return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, dtype=np.float32))
    generator = torch.Generator(device).manual_seed(int.from_bytes(key[:8], "big") >> 1)
    return torch.randn(shape, generator=generator, device=device)
