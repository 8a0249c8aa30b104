"""Activations in NumPy with a proved error, by other formulas than certification's.

|computed φ(x) − φ(x)| ≤ `ERROR_UNITS`·u·max(1, |φ(x)|), and the same for φ', for every float64 x.

exp(−t), t ≥ 0: t = (64k + j)·ln 2/64 + r, |r| ≤ 0.0055; exp(−t) = 2^-k · T_j · exp(−r),
T_j = 2^(-j/64) from 200-bit arithmetic, seven terms of Taylor (the rest below 1e-22). ln 2/64 is
split so that t − n·HIGH is exact; r is off by less than u, the product by less than 10u relative.
log(1 + e): what NumPy says is a guess y; d = (1 + e)·exp(−y) − 1 corrects it to y + d, off by at
most d² and 20u. A guess that is off by more than 1e-10 gives NaN, and NaN is refused everywhere.
"""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np

from pipeline.verify.outward import Float64

ERROR_UNITS = 256
LEAK = 0.01
STEPS = 64
CUT = 700.0
with mpmath.workprec(200):
    _STEP = mpmath.log(2) / STEPS
    HIGH = float(mpmath.floor(_STEP * 2**42)) / 2**42  # n·HIGH is exact for n < 2^16
    LOW = float(_STEP - HIGH)
    _TABLE = np.array([float(mpmath.mpf(2) ** (-mpmath.mpf(j) / STEPS)) for j in range(STEPS)])
SLOPES = {
    "relu": (Fraction(0), Fraction(1)),
    "leaky_relu": (Fraction(LEAK), Fraction(1)),
    "softplus": (Fraction(0), Fraction(1)),
    "sigmoid": (Fraction(0), Fraction(1, 4)),
    "tanh": (Fraction(0), Fraction(1)),
}
"""α and β of each activation that is known."""
BENDS = {
    "softplus": (Fraction(0), Fraction(1, 4)),
    "sigmoid": (-Fraction(96225044864938, 10**15), Fraction(96225044864938, 10**15)),
    "tanh": (-Fraction(769800358919502, 10**15), Fraction(769800358919502, 10**15)),
}
"""Bounds of φ'': √3/18 = 0.09622504486493763… and 4√3/9 = 0.769800358919501…, rounded up."""


def exp_minus(t: Float64) -> Float64:
    """exp(−t) for t ≥ 0."""
    t = np.minimum(t, CUT)
    n = np.nan_to_num(np.round(t / (HIGH + LOW))).astype(np.int64)
    r = (t - n * HIGH) - n * LOW
    series = np.full_like(t, -1.0 / 5040)
    for coefficient in (1 / 720, -1 / 120, 1 / 24, -1 / 6, 0.5, -1.0, 1.0):
        series = series * r + coefficient
    return np.ldexp(_TABLE[n % STEPS] * series, -(n // STEPS))


def log1p_unit(e: Float64) -> Float64:
    """log(1 + e) for 0 ≤ e ≤ 1."""
    guess = np.log1p(e)
    correction = (1 + e) * exp_minus(guess) - 1
    return np.where(np.abs(correction) < 1e-10, guess + correction, np.nan)


def activate(function: str, x: Float64) -> Float64:
    """φ(x) elementwise."""
    if function == "relu":
        return np.maximum(x, 0.0)
    if function == "leaky_relu":
        return np.where(x > 0, x, LEAK * x)
    if function == "tanh":
        e = exp_minus(2 * np.abs(x))
        return np.copysign((1 - e) / (1 + e), x)
    e = exp_minus(np.abs(x))
    if function == "softplus":
        return np.maximum(x, 0.0) + log1p_unit(e)
    return np.where(x >= 0, 1.0, e) / (1 + e)


def differentiate(function: str, x: Float64) -> Float64:
    """φ'(x) elementwise, of smooth activations."""
    if function == "tanh":
        e = exp_minus(2 * np.abs(x))
        return 4 * e / np.square(1 + e)
    e = exp_minus(np.abs(x))
    if function == "softplus":
        return np.where(x >= 0, 1.0, e) / (1 + e)
    return e / np.square(1 + e)
