"""Certified norm of a circular convolution, whose kernel is as large as its maps.

Theorem: y[i] = Σ_t W_t x[i + t mod n] is block-diagonalised by the discrete Fourier transform, so
its norm is exactly the largest norm of its blocks A(f/n), with nothing lost to a larger torus.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.lipschitz.arrays import exact_float64
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.conv import prove_blocks
from pipeline.lipschitz.evidence import published, trivial_bound
from pipeline.lipschitz.rounding import scaled_to_one, silent
from pipeline.lipschitz.torus import TorusBlocks


@silent
def circular_norm_bound(weight: Any) -> NormBound:
    """Upper bound of the norm of the circular convolution with kernel [O, I, H, W] on H×W maps.

    Raises:
        ValueError: the weight is not [O, I, H, W].
    """
    kernel = exact_float64(weight, ("O", "I", "H", "W"))
    trivial = trivial_bound(kernel)
    if trivial is not None:
        return trivial
    scaled, exponent = scaled_to_one(kernel)
    taps = scaled.transpose(2, 3, 0, 1)
    if taps.shape[2] < taps.shape[3]:
        taps = taps.swapaxes(2, 3)
    torus = TorusBlocks(np.ascontiguousarray(taps), kernel.shape[2:], (0, 0))
    proof = prove_blocks(torus, None)
    return published("circular", proof, torus.error, exponent, {"blocks": len(torus)})
