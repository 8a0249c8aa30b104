"""How a proved bound is published: with a slack, and with what is needed to repeat the proof.

Notable: the published value lies 1e-6 (relative) above the proved bound, so that a checker with
another method, whose own bound has another excess, can prove "norm ≤ value" without equality.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.rounding import Float64, add_up, mul_up, scaled_back, up
from pipeline.lipschitz.spectral import SpectralBound

SLACK = 1e-6


def trivial_bound(weight: Float64) -> NormBound | None:
    """The bound of a weight that needs no proof (all zero: 0) or has none (NaN or inf: inf)."""
    bad = int(np.count_nonzero(~np.isfinite(weight)))
    if bad:
        reason = f"{bad} of {weight.size} entries of the weight are not finite"
        return NormBound(np.inf, "none", {"reason": reason})
    if not weight.any():
        return NormBound(0.0, "zero")
    return None


def published(
    geometry: str, proof: SpectralBound, extra: float, exponent: int, evidence: dict[str, Any]
) -> NormBound:
    """The bound (`proof` + `extra`)·2^`exponent` with slack.

    Args:
        geometry: first part of the method's name, "torus" or "dense".
        proof: bound of the computed matrices, scaled by 2^-exponent.
        extra: bound of the distance from them to the exact matrices, in the same scale.
        exponent: of the power of two that was divided out before.
        evidence: what else is worth writing down.
    """
    proved = add_up(proof.value, extra) if extra else proof.value
    value = scaled_back(mul_up(proved, up(1 + SLACK)), exponent)
    if not np.isfinite(value):
        return NormBound(np.inf, "none", {"reason": "the norm exceeds the range of float64"})
    evidence |= {
        "proved": scaled_back(proved, exponent),
        "slack": SLACK,
        "q": proof.q,
        "q_exponent": 2 * exponent,  # σ² ≲ q·2^q_exponent; q alone may leave float64's range
    }
    return NormBound(value, f"{geometry}-{proof.method}", evidence)
