"""Upper bounds of σ_max that hold in spite of all rounding: Cholesky with residual, Gram iteration.

Matrices come in stacks [F, P, m, n], P = 1 (real) or 2 (real and imaginary part), m ≥ n; the stored
floats are the matrices, exactly. Proofs: docs/certificate.md §3.

Notable:
- Only real matrix products and Frobenius norms are trusted. The Cholesky routine is not: *any* R
  gives a bound, a wrong one gives a large bound and a NaN an infinite one. No status code is
  believed.
- The rounding terms are relative to ‖A‖_F²; at 588 channels they add 1e-10 to the bound.
- Complex products are made of real ones: no 3M trick, whose error the model does not cover.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.lipschitz.estimate import largest_ritz_values, start_vectors
from pipeline.lipschitz.rounding import (
    UNDERFLOW,
    UNIT,
    Float64,
    add_up,
    gamma,
    mul_up,
    silent,
    sqrt_upper,
    squares_upper,
    up,
)

SQRT2 = up(2.0**0.5)
LANCZOS_STEPS = 100
MARGIN = 2e-7
"""q is put this far (relative) above the estimate of σ²; half of it ends up in the bound."""
WIDER_MARGINS = (MARGIN, 1e-6, 1e-5, 1e-4, 1e-3)
LARGEST_ESTIMATED = 2.0**500
"""Beyond it the squares in an estimate overflow; Gram iteration, which scales, is left to prove."""
GRAM_LEVELS = 16
"""The excess of Gram iteration is at most n^(2^-17): 5e-5 at n = 588."""


@dataclass(frozen=True)
class SpectralBound:
    """The largest of the norms of a stack."""

    value: float
    """Not below any of them; inf where nothing could be proved."""
    method: str
    """"cholesky" or "gram"."""
    q: float
    """The shift of the Cholesky proof, q ≈ σ²; 0 for Gram iteration."""


@dataclass(frozen=True)
class GramForm:
    """H = fl(AᴴA) of every matrix of a stack."""

    parts: Float64
    """[F, P, n, n]."""
    error: Float64
    """[F], upper bounds of ‖H − AᴴA‖."""


@silent
def spectral_upper(parts: Float64, q: float | None = None) -> SpectralBound:
    """Upper bound of the largest σ_max of a stack [F, P, m, n].

    Theorem: if qI − AᴴA = RᴴR + E then σ_max(A)² ≤ q + ‖E‖; E is bounded a posteriori.

    Args:
        parts: entries of about 1 (powers of two aside the bound is always valid, but not tight when
            squares underflow).
        q: a guess slightly above the largest σ². Without it, or if it proves too small, one is
            estimated from the stack itself.
    """
    form = gram_form(parts)
    if q is not None:
        value = float(cholesky_upper(form, q).max())
        if value < np.inf:
            return SpectralBound(value, "cholesky", q)
    largest = _estimate(form)
    for margin in WIDER_MARGINS:
        q = largest * (1 + margin)
        value = float(cholesky_upper(form, q).max())
        if value < np.inf:
            return SpectralBound(value, "cholesky", q)
    return SpectralBound(float(gram_upper(parts).max()), "gram", 0.0)


def gram_product(parts: Float64) -> Float64:
    """fl(AᴴA): [F, P, m, n] -> [F, P, n, n]."""
    count, kinds, rows, columns = parts.shape
    stacked = np.ascontiguousarray(parts).reshape(count, kinds * rows, columns)  # [X; Y]
    product = np.empty((count, kinds, columns, columns))
    np.matmul(stacked.mT, stacked, out=product[:, 0])  # XᵀX + YᵀY
    if kinds == 2:
        mixed = stacked[:, :rows].mT @ stacked[:, rows:]  # XᵀY
        np.subtract(mixed, mixed.mT, out=product[:, 1])
    return product


def product_error(rows: int, columns: int, squares: Float64) -> Float64:
    """‖fl(AᴴA) − AᴴA‖ ≤ √2·γ_{2m+1}·‖A‖_F², and underflow: [F] from ‖A‖_F² [F]."""
    return add_up(mul_up(squares, SQRT2, gamma(2 * rows + 1)), 4 * rows * columns * UNDERFLOW)


def gram_form(parts: Float64) -> GramForm:
    """H = fl(AᴴA) and how far it is from AᴴA."""
    error = product_error(parts.shape[2], parts.shape[3], squares_upper(parts))
    return GramForm(gram_product(parts), error)


@silent
def cholesky_upper(form: GramForm, q: float) -> Float64:
    """Upper bounds of σ_max by the Cholesky factor of qI − H: [F].

    Tight if q is just above every σ²; infinite for all if LAPACK finds one of them not positive.
    """
    shifted = shift(form, q)
    factor = upper_factor(shifted)
    if factor is None:
        return np.full(len(shifted), np.inf)
    return residual_upper(form, q, shifted, factor)


def shift(form: GramForm, q: float) -> Float64:
    """M = fl(qI − H), [F, P, n, n]: only the diagonal rounds."""
    shifted = -form.parts
    diagonal = np.einsum("fii->fi", shifted[:, 0])  # a view
    diagonal += q
    return shifted


def upper_factor(shifted: Float64) -> Float64 | None:
    """R with RᴴR ≈ M, by LAPACK: [F, P, n, n], or None. Not trusted."""
    matrix = shifted[:, 0] if shifted.shape[1] == 1 else shifted[:, 0] + 1j * shifted[:, 1]
    try:
        lower = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return None
    if shifted.shape[1] == 1:
        return np.asarray(lower.mT[:, None])
    return np.stack([lower.real.mT, -lower.imag.mT], axis=1)


@silent
def residual_upper(form: GramForm, q: float, shifted: Float64, factor: Float64) -> Float64:
    """Upper bounds of σ_max from *any* matrices `factor` [F, P, n, n], right or wrong: [F].

    σ² ≤ q + ‖H − AᴴA‖ + u·max|M_ii| + ‖fl(M − P)‖_F(1 + u) + ‖P − RᴴR‖, P = fl(RᴴR).
    """
    diagonal = np.einsum("fii->fi", shifted[:, 0])
    return residual_bound(
        form.error,
        q,
        np.abs(diagonal).max(axis=1),
        squares_upper(shifted - gram_product(factor)),
        squares_upper(factor),
        factor.shape[-1],
    )


@silent
def residual_bound(
    error: Float64, q: float, largest: Float64, residual: Float64, factor: Float64, size: int
) -> Float64:
    """The sum of `residual_upper` from its terms, each [F] and not below the true one: [F].

    Args:
        error: of ‖H − AᴴA‖.
        q: the shift.
        largest: max|M_ii|.
        residual: of ‖fl(M − P)‖_F².
        factor: of ‖R‖_F².
        size: n.
    """
    square = add_up(
        error,
        q,
        mul_up(largest, UNIT),
        mul_up(sqrt_upper(residual), up(1 + UNIT)),
        product_error(size, size, factor),
    )
    bound = sqrt_upper(square)
    return np.where(np.isfinite(bound), bound, np.inf)


@silent
def gram_upper(parts: Float64, levels: int = GRAM_LEVELS) -> Float64:
    """Upper bounds of σ_max by Gram iteration: [F]. Needs no guess and no factorisation.

    Theorem: σ_max(A)² ≤ ‖fl(AᴴA)‖ + error, applied `levels` times, then the Frobenius norm. Every
    level is scaled by a power of two; rounding errors halve from level to level.
    """
    exponents, errors = [], []
    for _ in range(levels):
        largest = np.abs(parts).max(axis=(1, 2, 3))
        exponent = np.frexp(np.where(np.isfinite(largest), largest, 1))[1]
        parts = np.ldexp(parts, -exponent[:, None, None, None])
        rows, columns = parts.shape[2:]
        squares = squares_upper(parts)
        # Scaling loses up to 2^-1022 an entry of a matrix of norm ‖G‖_F: 2‖G‖_F + 1 ≤ ‖G‖_F² + 2.
        scaling = mul_up(add_up(squares, 2.0), rows * columns * UNDERFLOW)
        exponents.append(exponent)
        errors.append(add_up(product_error(rows, columns, squares), scaling))
        parts = gram_product(parts)
    bound = sqrt_upper(squares_upper(parts))
    for exponent, error in zip(reversed(exponents), reversed(errors), strict=True):
        bound = up(np.ldexp(sqrt_upper(add_up(bound, error)), exponent))
    return np.where(np.isfinite(bound), bound, np.inf)


def _estimate(form: GramForm) -> float:
    """The largest eigenvalue of a stack of H, from below; not rigorous. 0 if H is out of range."""
    if not np.abs(form.parts).max() < LARGEST_ESTIMATED:
        return 0.0
    real = form.parts.shape[1] == 1
    matrices = form.parts[:, 0] if real else form.parts[:, 0] + 1j * form.parts[:, 1]
    start = start_vectors(len(matrices), matrices.shape[-1], matrices.dtype)
    ritz = largest_ritz_values(lambda v: (matrices @ v[..., None])[..., 0], start, LANCZOS_STEPS)
    return float(ritz.max())
