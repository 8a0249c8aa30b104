"""Random numbers that belong to a sample: functions of a key, the same wherever it is drawn.

Notable:
- A key is a 64-bit hash of (purpose, seed, ..., sample), mixed as in `pipeline.data.order`; its
  stream is splitmix64's. Neither the rank, nor the batch, nor what was drawn before has a part.
- Integers are exact everywhere. Normal numbers are Box-Muller's in float64, rounded to float32:
  machines whose logarithm or cosine differ in the last place give equal numbers almost always.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TIMESTEP, HIDDEN_LABEL, TRAINING_NOISE, START = 101, 102, 103, 104
"""What is drawn; the streams of one seed are unrelated. (Below 100: `pipeline.data.order`.)"""


def _signed(value: int) -> int:
    """An unsigned 64-bit integer as torch's int64 holds it."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def keys(*parts: int | Tensor, device: torch.device | None = None) -> Tensor:
    """One key for each entry of the tensors among `parts`, which have one shape [B] int64."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    device = tensors[0].device if tensors else device
    state = torch.zeros(1, dtype=torch.int64, device=device)
    for part in parts:
        state = _mix((state ^ part) + _GOLDEN)
    return state


def uniform(of: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each key: [B] int64 -> [B, count] float64."""
    places = torch.arange(1, count + 1, device=of.device)
    bits = _mix(of[:, None] + places * _GOLDEN)
    return _shifted(bits, 11).double() * 2.0**-53


def normal(of: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Independent standard normal numbers for each key: [B] int64 -> [B, *shape] float32."""
    size = math.prod(shape)
    half = -(-size // 2)
    first, second = uniform(of, 2 * half).split(half, dim=1)
    radius = (-2 * torch.log1p(-first)).sqrt()  # 1 - first is never 0
    angle = second * (2 * math.pi)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return both[:, :size].to(torch.float32).view(-1, *shape)


def _mix(values: Tensor) -> Tensor:
    """splitmix64's finaliser; int64 products wrap as unsigned ones do."""
    values = (values ^ _shifted(values, 30)) * _FIRST
    values = (values ^ _shifted(values, 27)) * _SECOND
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, places: int) -> Tensor:
    """A logical shift to the right."""
    return (values >> places) & ((1 << (64 - places)) - 1)
