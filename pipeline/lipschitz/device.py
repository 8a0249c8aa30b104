"""Norm bounds on another device: which one, and the few operations that run there.

Notable:
- A device is chosen around the proofs (`proofs_on`), not passed through the layers. Without one,
  everything is NumPy on the CPU. With one, matrix products, factorisations and sums of squares run
  there in float64; what is combined of them afterwards is the same code as ever, on the CPU.
- As everywhere only real matrix products and sums are trusted, in any order of summation (the probe
  of a certification tries them on its device); factorisations and solves there are not.
- `device="cpu"` runs the same code by torch, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from pipeline.lipschitz.rounding import UNDERFLOW, Float64, add_up, gamma, mul_up, silent, up

_CHOSEN: ContextVar[torch.device | None] = ContextVar("device of proofs", default=None)


@contextmanager
def proofs_on(device: torch.device | None) -> Iterator[None]:
    """Inside, norms are proved on `device`; None is NumPy on the CPU."""
    token = _CHOSEN.set(device)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def proving_device() -> torch.device | None:
    """The device of `proofs_on`."""
    return _CHOSEN.get()


def gram_product_on(parts: Tensor) -> Tensor:
    """fl(AᴴA) by real products: [F, P, m, n] -> [F, P, n, n]; as `spectral.gram_product`."""
    count, kinds, rows, columns = parts.shape
    stacked = parts.reshape(count, kinds * rows, columns)  # [X; Y]
    real = stacked.mT @ stacked  # XᵀX + YᵀY
    if kinds == 1:
        return real[:, None]
    mixed = stacked[:, :rows].mT @ stacked[:, rows:]  # XᵀY
    return torch.stack([real, mixed - mixed.mT], dim=1)


@silent
def squares_on(values: Tensor) -> Float64:
    """Upper bound of the sum of squares of every [i, ...]: [F, ...] -> [F], on the CPU."""
    flat = values.flatten(1)
    total = (flat * flat).sum(1).cpu().numpy()
    count = flat.shape[1]
    return add_up(mul_up(total, up(1 + gamma(2 * count + 2))), count * UNDERFLOW)


def factor_on(shifted: Tensor) -> Tensor:
    """R with RᴴR ≈ M: [F, P, n, n] -> the same. Not trusted; anything if M is not positive."""
    lower, _ = torch.linalg.cholesky_ex(joined(shifted))  # its status is not looked at
    return split(lower.mH, shifted.shape[1])


def joined(parts: Tensor) -> Tensor:
    """[F, P, m, n] as F real or complex matrices."""
    return parts[:, 0] if parts.shape[1] == 1 else torch.complex(parts[:, 0], parts[:, 1])


def split(matrices: Tensor, kinds: int) -> Tensor:
    """The inverse of `joined`."""
    if kinds == 1:
        return matrices[:, None].contiguous()
    return torch.stack([matrices.real, matrices.imag], dim=1)


def start_on(count: int, size: int, device: torch.device) -> Tensor:
    """[count, size, 4] unit vectors in general position, the same in every run."""
    vectors = np.random.default_rng(20230).standard_normal((size, 4))
    vectors /= np.linalg.norm(vectors, axis=0)
    return torch.from_numpy(vectors).to(device).expand(count, size, 4)
