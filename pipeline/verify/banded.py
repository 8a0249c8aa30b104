"""Bounds with at most one axis on a torus: a factorisation from the last block row upwards.

A convolution whose rows are not wrapped is y_i = Σ_τ B_τ x_{i+τ}, 0 ≤ i < m, 0 ≤ i + τ < n': for a
frequency of the wrapped axis (docs/certificate.md §2: the theorem holds axis by axis), or with
neither axis wrapped, when B_τ is itself a Toeplitz matrix of blocks. Its norm is that of the block
matrix T[i, J] = B_{J−i}.

The certifier factors qI − TᴴT downwards, in complex parts, and adds up Frobenius norms. This is
another route: S = qI − TTᴴ = U Uᴴ with U upper triangular, from the last row upwards; a complex
matrix X + iY is the real one [[X, −Y], [Y, X]] of the same norm; and what U Uᴴ misses is a matrix
of blocks, whose norm is at most the largest row sum of its blocks' norms. For *any* U
    ‖T‖² ≤ q + max_i Σ_k ‖(S − U Uᴴ)_{ik}‖_F,   S the exact qI − TTᴴ.
The computed blocks of S − U Uᴴ are sums of at most L products and a few terms, taken in any order:
each is off by at most γ (q on the diagonal + Σ ‖B‖‖B'‖ + Σ ‖U‖‖U'‖), in Frobenius norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.verify.outward import GROW, Float64, ceil_float, gamma, norm_upper

UNDERFLOW = 2.0**-1000
ROUGHLY = 1.0 + 2.0**-40
"""More than a few dozen additions and products of non-negative numbers can lose."""
ROOMS = (1e-6, 2e-7)
"""q lies this far (relative) below the square of the claim, which is left for the rounding."""


@dataclass(frozen=True, eq=False)
class Band:
    """T[i, J] = blocks[J − i + before] where that exists, else 0; real."""

    blocks: Float64
    """[T, r, c], of magnitude about 1."""
    before: int
    rows: int
    columns: int

    def work(self) -> float:
        """Floating-point operations of a proof, roughly."""
        count, high, wide = self.blocks.shape
        return self.rows * (count + 1.0) ** 2 * (3.0 * high**3 + high**2 * wide)


def real_embedding(parts: Float64) -> Float64:
    """[..., 2, r, c] real and imaginary parts -> [..., 2r, 2c] of the same norm."""
    real, imaginary = parts[..., 0, :, :], parts[..., 1, :, :]
    return np.concatenate(
        [
            np.concatenate([real, -imaginary], axis=-1),
            np.concatenate([imaginary, real], axis=-1),
        ],
        axis=-2,
    )


def transposed(band: Band) -> Band:
    """Tᵀ, of the same norm."""
    blocks = band.blocks[::-1].transpose(0, 2, 1).copy()
    return Band(blocks, len(blocks) - 1 - band.before, band.columns, band.rows)


def least_bound(band: Band, claim: float) -> float:
    """A proved bound of ‖T‖, at most `claim` if that can be shown; infinite if nothing can."""
    if band.rows * band.blocks.shape[1] > band.columns * band.blocks.shape[2]:
        band = transposed(band)
    best = math.inf
    for room in ROOMS:
        best = min(best, _bound(band, claim * claim * (1 - room)))
        if best <= claim:
            break
    return best


def _bound(band: Band, q: float) -> float:
    """√(q + the largest row sum), rounded up; infinite where qI − TTᵀ has no factor."""
    count, high, wide = band.blocks.shape
    width = min(count, band.rows) - 1
    products = _Products(band)
    factors: dict[tuple[int, int], Float64] = {}  # U_{ik} of the rows that are still to come
    sizes: dict[tuple[int, int], float] = {}  # ‖U_{ik}‖_F
    sums = np.zeros(band.rows)
    length = count * wide + (width + 1) * high
    share = ceil_float(gamma(length + count + width + 8))
    lost = (count + width + 2.0) * length * high * UNDERFLOW
    for column in range(band.rows - 1, -1, -1):
        for row in range(column, max(column - width, 0) - 1, -1):
            rest, mass = products.block(row, column)
            rest = -rest
            if row == column:
                rest[np.diag_indices(high)] += q
                mass += q * math.sqrt(high)
            for beyond in range(column + 1, min(row + width, band.rows - 1) + 1):
                rest -= factors[row, beyond] @ factors[column, beyond].T
                mass += sizes[row, beyond] * sizes[column, beyond]
            factor = (
                _square_root(rest) if row == column else _divided(rest, factors[column, column])
            )
            if factor is None:
                return math.inf
            factors[row, column] = factor
            sizes[row, column] = float(norm_upper(factor, (0, 1)))
            rest -= factor @ factors[column, column].T
            mass += sizes[row, column] * sizes[column, column]
            missed = float(norm_upper(rest, (0, 1))) + mass * share * ROUGHLY + lost
            for place in {row, column}:  # above the diagonal and below it
                sums[place] = (sums[place] + missed) * ROUGHLY
        factors = {place: factor for place, factor in factors.items() if place[0] < column}
    if not np.isfinite(sums).all():
        return math.inf
    return math.sqrt((q + float(sums.max())) * GROW) * GROW


class _Products:
    """The blocks of TTᵀ; those of rows far from both ends are equal."""

    def __init__(self, band: Band) -> None:
        self._band = band
        self._sizes = norm_upper(band.blocks, (1, 2))  # ‖B_τ‖_F
        self._known: dict[tuple[int, int, int], Float64] = {}

    def block(self, row: int, column: int) -> tuple[Float64, float]:
        """Block (i, k), i ≤ k, and what its rounding is relative to: Σ ‖B_{J−i}‖ ‖B_{J−k}‖."""
        band, distance = self._band, column - row
        first = max(0, band.before - column)  # J = t + k − before, 0 ≤ J < n'
        last = min(len(band.blocks) - distance, band.columns + band.before - column)
        key = (distance, first, last)
        numbers = range(first, last)
        if key not in self._known:
            total = np.zeros((band.blocks.shape[1],) * 2)
            for number in numbers:
                total += band.blocks[number + distance] @ band.blocks[number].T
            self._known[key] = total
        mass = sum(float(self._sizes[t + distance] * self._sizes[t]) for t in numbers)
        return self._known[key], mass


def _square_root(matrix: Float64) -> Float64 | None:
    """U with U Uᵀ ≈ M, or None. Nothing is assumed of it."""
    try:
        return np.asarray(np.linalg.cholesky(matrix), np.float64)
    except np.linalg.LinAlgError:
        return None


def _divided(matrix: Float64, corner: Float64) -> Float64 | None:
    """X with X cornerᵀ ≈ M, or None. Nothing is assumed of it."""
    try:
        return np.asarray(np.linalg.solve(corner, matrix.T).T, np.float64)
    except np.linalg.LinAlgError:
        return None
