"""Certified norm of a dense layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.lipschitz.arrays import exact_float64
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.device import proving_device
from pipeline.lipschitz.device_spectral import spectral_upper_on
from pipeline.lipschitz.evidence import published, trivial_bound
from pipeline.lipschitz.parallel import map_in_order
from pipeline.lipschitz.rounding import scaled_to_one
from pipeline.lipschitz.spectral import spectral_upper


def certified_dense_norm(weight: Any) -> float:
    """A float64 that is not below ‖W‖, the l2 operator norm of x ↦ Wx; about 1e-6 above it.

    Theorem: for any R, ‖W‖² ≤ q + ‖qI − WᵀW − RᵀR‖; with R the Cholesky factor of qI − WᵀW the last
    norm is rounding, which is bounded a posteriori (docs/certificate.md §3).

    Args:
        weight: [O, I], a torch tensor or array of any dtype that float64 contains.

    Returns:
        The bound: 0 for a zero matrix, inf where an entry is NaN or infinite or float64 overflows.

    Raises:
        ValueError: not a real matrix, or empty.
    """
    return dense_norm_bound(weight).value


def dense_norm_bound(weight: Any) -> NormBound:
    """`certified_dense_norm` with its evidence."""
    matrix = exact_float64(weight, ("O", "I"))
    trivial = trivial_bound(matrix)
    if trivial is not None:
        return trivial
    scaled, exponent = scaled_to_one(matrix)
    tall = scaled if scaled.shape[0] >= scaled.shape[1] else scaled.T
    whole, device = np.ascontiguousarray(tall)[None, None], proving_device()
    if device is not None:
        proof = spectral_upper_on(torch.from_numpy(whole).to(device))
    else:
        [proof] = map_in_order(spectral_upper, [whole])
    return published("dense", proof, 0.0, exponent, {})
