"""The norm of a block-Toeplitz operator with few diagonals: block Cholesky, its residual computed.

An axis of a convolution that is not wrapped into a torus is T[i, J] = B_{J − i}, 0 ≤ i < m,
0 ≤ J < n, with blocks at the offsets −P..Q only. TᴴT then has w = P + Q block diagonals beside the
main one, and so has the Cholesky factor of qI − TᴴT, which is found a block row at a time.

Theorem (docs/certificate.md §3): for *any* R, ‖T‖² ≤ q + ‖(qI − TᴴT) − RᴴR‖.

Notable:
- As in spectral.py only real matrix products and Frobenius norms are trusted, neither LAPACK nor
  the triangular solves.
- What a block row leaves of M = qI − TᴴT serves twice: it gives the row's factor, and with that
  factor's product it is the residual. So the check costs a third of the factorisation, and only w
  block rows of R are kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from pipeline.lipschitz.estimate import converged_ritz_value, start_vectors
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
)
from pipeline.lipschitz.spectral import SQRT2


@dataclass(frozen=True, eq=False)
class BlockToeplitz:
    """T[i, J] = blocks[J − i + before] where that exists, else 0. The blocks are exact floats."""

    blocks: Float64
    """[T, P, r, c], P = 1 (real) or 2 (real and imaginary part), of magnitude about 1."""
    before: int
    """P: blocks[0] stands at offset −P."""
    rows: int
    """m, block rows."""
    columns: int
    """n, block columns."""

    @property
    def width(self) -> int:
        """w, the block diagonals of TᴴT above the main one."""
        return min(len(self.blocks), self.columns) - 1

    def upright(self) -> BlockToeplitz:
        """This operator or its adjoint, whichever has fewer columns; their norms are equal."""
        high, wide = self.blocks.shape[2:]
        if self.columns * wide <= self.rows * high:
            return self
        blocks = self.blocks[::-1].swapaxes(2, 3).copy()
        blocks[:, 1:] *= -1
        after = len(blocks) - 1 - self.before
        return BlockToeplitz(blocks, after, self.columns, self.rows)

    def work(self) -> float:
        """Floating-point operations of a proof, roughly."""
        parts, size = self.blocks.shape[1], float(self.blocks.shape[3])
        return parts**2 * self.columns * (self.width + 1) * (self.width + 4) * size**3


@silent
def banded_upper(operator: BlockToeplitz, q: float) -> float:
    """Upper bound of ‖T‖, tight if q is slightly above ‖T‖²; inf where the proof fails.

    ‖T‖² ≤ q + e_H + e_d + ‖E‖_F + e_R, with M = fl(qI − fl(TᴴT)) and for every block
    E_{J,J+d} = fl(M_{J,J+d} − Σ_k R_kᴴR_k): e_H bounds the rounding of TᴴT, e_d = u·max|M_ii| that
    of qI − ·, and e_R = √2·γ·(‖M‖_F + ‖R‖_F²) that of the sums in E.
    """
    count, kinds, high, size = operator.blocks.shape
    width = operator.width
    grams = _Grams(operator)
    rows: deque[list[Float64]] = deque(maxlen=max(width, 1))
    residual = squares_of_m = squares_of_r = largest = 0.0
    for column in range(operator.columns):
        factors: list[Float64] = []
        for distance in range(min(width, operator.columns - 1 - column) + 1):
            left = -grams.entry(column, distance)
            if distance == 0:
                diagonal = np.einsum("ii->i", left[0])  # a view
                diagonal += q
                largest = max(largest, float(np.abs(diagonal).max()))
            times = 1 if distance == 0 else 2  # it stands above and below the diagonal
            squares_of_m = add_up(squares_of_m, times * float(squares_upper(left[None])[0]))
            above = [
                (row[back], row[back + distance])
                for back, row in zip(range(len(rows), 0, -1), rows, strict=True)
                if width and back + distance < len(row)
            ]
            if above:
                first, second = (np.concatenate(part, axis=1) for part in zip(*above, strict=True))
                left -= adjoint_product(first, second)
            if distance == 0:
                corner = _factor(left)
                if corner is None:
                    return np.inf
                factors.append(corner)
            else:
                factors.append(_solve(factors[0], left))
            left -= adjoint_product(factors[0], factors[distance])
            residual = add_up(residual, times * float(squares_upper(left[None])[0]))
            squares_of_r = add_up(squares_of_r, float(squares_upper(factors[distance][None])[0]))
        rows.append(factors)
    # Of |T|ᵀ|T| and |R|ᵀ|R| the Frobenius norms are at most ‖T‖_F² and ‖R‖_F².
    squares_of_t = mul_up(
        float(squares_upper(operator.blocks.reshape(1, -1))[0]),
        float(min(operator.rows, operator.columns)),
    )
    summed = kinds * size * (width + 1)
    square = add_up(
        q,
        mul_up(squares_of_t, SQRT2, gamma(kinds * high + count + 1)),
        mul_up(largest, UNIT),
        sqrt_upper(residual),
        mul_up(add_up(sqrt_upper(squares_of_m), squares_of_r), SQRT2, gamma(summed + 4)),
        8.0 * count * (high + summed) * operator.columns * size * UNDERFLOW,
    )
    bound = sqrt_upper(square)
    return bound if np.isfinite(bound) else np.inf


def adjoint_product(first: Float64, second: Float64) -> Float64:
    """fl(AᴴB) by one real product: [P, r, c], [P, r, e] -> [P, c, e]."""
    kinds, rows, columns = first.shape
    stacked = first.reshape(kinds * rows, columns)  # [X; Y]
    if kinds == 1:
        return np.asarray((stacked.T @ second[0])[None])
    width = second.shape[2]
    right = np.empty((2 * rows, 2 * width))
    right[:rows, :width], right[rows:, :width] = second[0], second[1]
    right[:rows, width:], right[rows:, width:] = second[1], -second[0]
    both = stacked.T @ right
    return np.stack([both[:, :width], both[:, width:]])


@silent
def largest_square(operator: BlockToeplitz, steps: int) -> float:
    """Estimate of ‖T‖² from below, by at most `steps` of Lanczos; proves nothing."""
    parts = operator.blocks
    blocks = parts[:, 0] if parts.shape[1] == 1 else parts[:, 0] + 1j * parts[:, 1]
    adjoints = blocks.conj().mT
    rows, columns, size = operator.rows, operator.columns, parts.shape[3]

    def apply(flat: np.ndarray) -> np.ndarray:
        vector = flat.reshape(columns, size).T  # [c, n]
        image = np.zeros((parts.shape[2], rows), blocks.dtype)
        back = np.zeros((size, columns), blocks.dtype)
        for number in range(len(blocks)):
            first, last, offset = _span(operator, number)
            image[:, first:last] += blocks[number] @ vector[:, first + offset : last + offset]
        for number in range(len(blocks)):
            first, last, offset = _span(operator, number)
            back[:, first + offset : last + offset] += adjoints[number] @ image[:, first:last]
        return back.T.ravel()

    start = start_vectors(1, columns * size, blocks.dtype)
    return converged_ritz_value(apply, start[0], steps)


def _span(operator: BlockToeplitz, number: int) -> tuple[int, int, int]:
    """Rows i from first to last − 1 have block `number`, in column i + offset."""
    offset = number - operator.before
    first = max(0, -offset)
    return first, max(first, min(operator.rows, operator.columns - offset)), offset


class _Grams:
    """The blocks of TᴴT; those of block columns far from both ends are equal."""

    def __init__(self, operator: BlockToeplitz) -> None:
        self._operator = operator
        blocks = operator.blocks
        self._products = {
            (number, distance): adjoint_product(blocks[number], blocks[number + distance])
            for distance in range(operator.width + 1)
            for number in range(len(blocks) - distance)
        }

    def entry(self, column: int, distance: int) -> Float64:
        """Block (J, J + d): the sum of B_tᴴB_{t+d} over the rows i = J − t + P that exist."""
        operator = self._operator
        size = operator.blocks.shape[3]
        total = np.zeros((operator.blocks.shape[1], size, size))
        for number in range(len(operator.blocks) - distance):
            if 0 <= column - number + operator.before < operator.rows:
                total += self._products[number, distance]
        return total


def _factor(matrix: Float64) -> Float64 | None:
    """Upper triangular R with RᴴR ≈ M [P, c, c], or None. Not trusted."""
    whole = matrix[0] if len(matrix) == 1 else matrix[0] + 1j * matrix[1]
    try:
        lower = np.linalg.cholesky(whole)
    except np.linalg.LinAlgError:
        return None
    return _parts(lower.conj().T, len(matrix))


def _solve(corner: Float64, right: Float64) -> Float64:
    """X with RᴴX ≈ right. Not trusted."""
    if len(corner) == 1:
        solved = solve_triangular(corner[0], right[0], trans="T", check_finite=False)
    else:
        whole, target = (part[0] + 1j * part[1] for part in (corner, right))
        solved = solve_triangular(whole, target, trans="C", check_finite=False)
    return _parts(solved, len(corner))


def _parts(matrix: np.ndarray, kinds: int) -> Float64:
    """A matrix as [P, r, c]."""
    return np.ascontiguousarray(
        matrix[None] if kinds == 1 else np.stack([matrix.real, matrix.imag])
    )
