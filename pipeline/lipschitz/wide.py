"""Certified norm of a large explicit matrix with few rows: by Cholesky of q·I − M·Mᵀ.

Notable: `certified_dense_norm` for matrices of up to a gigabyte. The matrix is scaled in place and
never copied; what is factorised is s×s.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.estimate import largest_ritz_values, start_vectors
from pipeline.lipschitz.evidence import published
from pipeline.lipschitz.rounding import scaled_back, silent, sqrt_upper, squares_upper
from pipeline.lipschitz.spectral import (
    LANCZOS_STEPS,
    WIDER_MARGINS,
    GramForm,
    SpectralBound,
    cholesky_upper,
    product_error,
)


@silent
def wide_norm_bound(matrix: Tensor, error: float) -> NormBound:
    """Upper bound of the norm of every matrix within `error` (in 2-norm) of `matrix`.

    Args:
        matrix: [s, l] float64, s ≤ l. Destroyed: it comes back scaled.
        error: how far the exact matrix may be.

    Returns:
        inf where an entry is not finite.
    """
    rows = matrix.numpy()
    largest = float(np.abs(rows).max())
    if not math.isfinite(largest):
        return NormBound(math.inf, "none", {"reason": "an entry of the product is not finite"})
    exponent = math.frexp(largest)[1]
    np.ldexp(rows, -exponent, out=rows)
    short, long = rows.shape
    squares = squares_upper(rows[None])
    form = GramForm((rows @ rows.T)[None, None], product_error(long, short, squares))
    bound = _proved(form, float(sqrt_upper(squares)[0]))
    return published("explicit", bound, scaled_back(error, -exponent), exponent, {})


def _proved(form: GramForm, frobenius: float) -> SpectralBound:
    """σ_max by Cholesky, or by the Frobenius norm where that fails."""
    gram = form.parts[0, 0]
    start = start_vectors(1, len(gram), np.float64)
    estimate = float(largest_ritz_values(lambda v: v @ gram, start, LANCZOS_STEPS)[0])
    for margin in WIDER_MARGINS:
        value = float(cholesky_upper(form, estimate * (1 + margin))[0])
        if value < math.inf:
            return SpectralBound(min(value, frobenius), "cholesky", estimate * (1 + margin))
    return SpectralBound(frobenius, "frobenius", 0.0)
