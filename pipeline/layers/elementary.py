"""exp, sigmoid, tanh and softplus with a proved error, from +, −, ×, ÷ and powers of two.

No library says how far its transcendental functions may be off; these need no such word. With
|fl(φ(x)) − φ(x)| ≤ `ERROR`·max(1, |φ(x)|) for every float64 x, and the same for φ', they cost a few
dozen elementwise operations beside matrix products of a thousand terms.

exp(−t), t ≥ 0: t = k·ln 2 + r with |r| ≤ 0.35. ln 2 = HIGH + LOW, HIGH a multiple of 2^-42 below 1,
so k·HIGH and t − k·HIGH are exact for k < 2^11 (the difference is a multiple of 2^-54 below 0.36);
r is off by less than u. Fourteen terms of Taylor leave 1e-19, Horner's scheme rounds by at most
γ_28·e^0.35 < 41u of a value that is at least 0.7: 60u relative in all. 2^-k comes from a table.

log(1 + e), 0 ≤ e ≤ 1: 2·artanh(s), s = e/(2 + e) ≤ 1/3, seventeen odd terms, all positive, the rest
below 1e-17: 40u relative. Sums and quotients of these lose a few u more. t above 700 is cut there:
exp(−t) is off by 1e-304 then.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.lipschitz.slopes import LEAK

ERROR_UNITS = 256
"""The error in units of u = 2^-53, more than twice what is proved above."""
HIGH = math.floor(math.log(2) * 2**42) / 2**42
LOW = 5.497923018708371e-14
"""ln 2 − HIGH, to 53 bits."""
LARGEST = 700.0
_POWERS = torch.tensor([2.0**-k for k in range(1020)], dtype=torch.float64)
_TAYLOR = [1 / math.factorial(n) for n in range(14, -1, -1)]
_ARTANH = [2 / (2 * n + 1) for n in range(17, -1, -1)]


def exp_minus(t: Tensor) -> Tensor:
    """exp(−t) for t ≥ 0, float64; NaN stays NaN."""
    t = t.clamp(max=LARGEST)
    k = torch.nan_to_num(torch.round(t / math.log(2)))
    r = -((t - k * HIGH) - k * LOW)
    value = torch.full_like(t, _TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        value = value * r + coefficient
    return value * _POWERS.to(t.device)[k.long()]


def log1p_unit(e: Tensor) -> Tensor:
    """log(1 + e) for 0 ≤ e ≤ 1, float64."""
    s = e / (2 + e)
    square = s * s
    value = torch.full_like(s, _ARTANH[0])
    for coefficient in _ARTANH[1:]:
        value = value * square + coefficient
    return value * s


def activate(function: str, x: Tensor) -> Tensor:
    """φ(x) elementwise, float64, within the error above; relu is exact."""
    if function == "relu":
        return x.clamp(min=0)
    if function == "leaky_relu":
        return torch.where(x > 0, x, LEAK * x)
    if function == "tanh":
        e = exp_minus(2 * x.abs())
        return torch.sign(x) * ((1 - e) / (1 + e))
    e = exp_minus(x.abs())
    if function == "softplus":
        return x.clamp(min=0) + log1p_unit(e)
    assert function == "sigmoid", function
    return torch.where(x >= 0, torch.ones_like(e), e) / (1 + e)


def differentiate(function: str, x: Tensor) -> Tensor:
    """φ'(x) elementwise, float64, within the error above; of smooth activations only."""
    if function == "tanh":
        e = exp_minus(2 * x.abs())
        return 4 * e / ((1 + e) * (1 + e))
    e = exp_minus(x.abs())
    if function == "softplus":
        return torch.where(x >= 0, torch.ones_like(e), e) / (1 + e)
    assert function == "sigmoid", function
    return e / ((1 + e) * (1 + e))
