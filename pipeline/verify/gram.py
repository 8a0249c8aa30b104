"""Rigorous Gram iteration: upper bounds of spectral norms from matrix products and Frobenius norms.

The claim of a certificate was proved by a factorisation; this is the second witness, which shares
neither the method nor a line of code with it. For any matrix G, ‖G‖² = ‖GᴴG‖, and ‖G‖ ≤ ‖G‖_F.
After K squarings the Frobenius norm overestimates the spectral norm by at most r^(2^-(K+1)), r the
rank (Delattre et al., Efficient Bound of Lipschitz Constant for Convolutional Layers by Gram
Iteration, ICML 2023). The unrounded iteration falls *below* the norm in floating point (3.6e-12 on
a 500×400 matrix); here every level carries the error of the level below it.

Level k, with everything in exact floats:
    G_k ← 2^(-e_k) G_k, the largest entry in [1/2, 1): exact but for underflow (see below)
    G_{k+1} = fl(G_kᴴ G_k), and |G_{k+1} − G_kᴴG_k| in 2-norm ≤ err_k = √2 γ_{2m+1} ‖G_k‖_F²
(m rows; real parts are sums of 2m products, off by γ_{2m} |S|ᵀ|S| with S = [Re; Im]; imaginary
parts Z − Zᵀ, Z = ReᵀIm, by γ_{m+1}(|Re|ᵀ|Im| + |Im|ᵀ|Re|); the Frobenius norm of each of the two
is at most γ ‖G_k‖_F²). Backwards from b_K = ‖G_K‖_F:
    b_k = 2^(e_k) √(b_{k+1} + err_k)  ≥ ‖G_k‖.
Underflow: the scaled matrix has an entry ≥ 1/2, so its norm is ≥ 1/2 and that of its Gram ≥ 1/4;
losing 2^-1022 per scaled entry and per product is less than a relative 2^-900, covered by `GROW`.

Each matrix is iterated only until its bound has fallen to the claim: blocks well below it need a
few levels, the largest about fifteen for a claim 1e-6 above the norm.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pipeline.verify.outward import (
    GROW,
    Float64,
    ceil_float,
    gamma,
    sqrt_ceil,
    square_sum_upper,
)

LEVELS = 40


def spectral_upper_bounds(parts: Float64, target: float, levels: int = LEVELS) -> Float64:
    """Upper bounds of the spectral norms of a stack of matrices.

    parts: [F, 1, m, n] real matrices or [F, 2, m, n] real and imaginary parts; fastest for m ≥ n.
    target: a matrix is finished as soon as its bound is at most `target`.

    Returns [F] bounds; infinite where the input is not finite. Every bound is proved, also those
    that stayed above the target after `levels` squarings.
    """
    number, pieces, rows, columns = parts.shape
    best = np.full(number, np.inf)
    if not np.isfinite(parts).all():
        return best
    active = np.arange(number)
    stack = parts.reshape(number, pieces * rows, columns)  # real parts above imaginary parts
    history: list[tuple[np.ndarray, Float64]] = []  # (e_k, err_k) of the active matrices
    for level in range(levels + 1):
        stack, exponents = _scaled(stack)
        squares = square_sum_upper(np.einsum("fij,fij->f", stack, stack), stack[0].size)
        bounds = _unscaled(np.sqrt(squares), exponents)
        for exponent, error in reversed(history):
            bounds = _unscaled(np.sqrt(bounds + error), exponent)
        best[active] = np.fmin(best[active], bounds)
        open_ = ~(best[active] <= target)
        if level == levels or not open_.any():
            break
        active, stack = active[open_], stack[open_]
        history = [(exponent[open_], error[open_]) for exponent, error in history]
        errors = squares[open_] * _error_factor(stack.shape[1] // pieces)
        history.append((exponents[open_], errors * GROW))
        stack = _gram(stack, pieces)
    return best


def _error_factor(rows: int) -> float:
    """√2 γ_{2m+1}, rounded up."""
    return ceil_float(Fraction(sqrt_ceil(Fraction(2))) * gamma(2 * rows + 1))


def _scaled(stack: Float64) -> tuple[Float64, np.ndarray]:
    """Each matrix times the power of two 2^-e that brings its largest entry into [1/2, 1)."""
    largest = np.abs(stack).max(axis=(1, 2))
    _, exponents = np.frexp(largest)
    return np.ldexp(stack, -exponents[:, None, None]), exponents


def _unscaled(bounds: Float64, exponents: np.ndarray) -> Float64:
    """`bounds` times 2^e, rounded up; ldexp itself rounds where the result is subnormal."""
    raised = np.ldexp(bounds * GROW, exponents)
    return np.where(bounds > 0, np.nextafter(raised, np.inf), raised)


def _gram(stack: Float64, pieces: int) -> Float64:
    """AᴴA of A = X + iY, from three real products (no 3M trick, no complex BLAS)."""
    transposed = stack.transpose(0, 2, 1)
    real = np.matmul(transposed, stack)
    if pieces == 1:
        return real
    rows = stack.shape[1] // 2
    mixed = np.matmul(transposed[:, :, :rows], stack[:, rows:])
    return np.concatenate([real, mixed - mixed.transpose(0, 2, 1)], axis=1)
