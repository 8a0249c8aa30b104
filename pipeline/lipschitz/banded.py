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
import torch

from pipeline.lipschitz.block_operations import Block, Operations, operations
from pipeline.lipschitz.device import joined, proving_device
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
    on = operations()
    grams = _Grams(operator, on)
    rows: deque[list[Block]] = deque(maxlen=max(width, 1))
    residual = squares_of_m = squares_of_r = largest = 0.0
    for column in range(operator.columns):
        factors: list[Block] = []
        for distance in range(min(width, operator.columns - 1 - column) + 1):
            left = -grams.entry(column, distance)
            if distance == 0:
                largest = max(largest, on.shift(left, q))
            times = 1 if distance == 0 else 2  # it stands above and below the diagonal
            squares_of_m = add_up(squares_of_m, times * on.squares(left))
            above = [
                (row[back], row[back + distance])
                for back, row in zip(range(len(rows), 0, -1), rows, strict=True)
                if width and back + distance < len(row)
            ]
            if above:
                first, second = (on.stacked(list(part)) for part in zip(*above, strict=True))
                left -= on.product(first, second)
            if distance == 0:
                corner = on.factor(left)
                if corner is None:
                    return np.inf
                factors.append(corner)
            else:
                factors.append(on.solve(factors[0], left))
            left -= on.product(factors[0], factors[distance])
            residual = add_up(residual, times * on.squares(left))
            squares_of_r = add_up(squares_of_r, on.squares(factors[distance]))
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


@silent
def largest_square(operator: BlockToeplitz, steps: int) -> float:
    """Estimate of ‖T‖² from below, by at most `steps` of Lanczos; proves nothing."""
    parts, device = operator.blocks, proving_device()
    if device is not None:
        return _largest_square_on(operator, steps, device)
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


def _largest_square_on(operator: BlockToeplitz, steps: int, device: torch.device) -> float:
    """The same with the products on a device; the few vectors stay here."""
    blocks = joined(torch.from_numpy(operator.blocks).to(device))
    rows, columns, size = operator.rows, operator.columns, operator.blocks.shape[3]

    def apply(flat: np.ndarray) -> np.ndarray:
        vector = torch.from_numpy(flat.reshape(columns, size)).to(device).T.to(blocks.dtype)
        image, back = vector.new_zeros(blocks.shape[1], rows), torch.zeros_like(vector)
        spans = [_span(operator, number) for number in range(len(blocks))]
        for block, (first, last, offset) in zip(blocks, spans, strict=True):
            image[:, first:last] += block @ vector[:, first + offset : last + offset]
        for block, (first, last, offset) in zip(blocks, spans, strict=True):
            back[:, first + offset : last + offset] += block.mH @ image[:, first:last]
        return np.asarray(back.T.cpu().numpy()).ravel()

    kind = np.complex128 if blocks.is_complex() else np.float64
    return converged_ritz_value(apply, start_vectors(1, columns * size, kind)[0], steps)


def _span(operator: BlockToeplitz, number: int) -> tuple[int, int, int]:
    """Rows i from first to last − 1 have block `number`, in column i + offset."""
    offset = number - operator.before
    first = max(0, -offset)
    return first, max(first, min(operator.rows, operator.columns - offset)), offset


class _Grams:
    """The blocks of TᴴT; those of block columns far from both ends are equal."""

    def __init__(self, operator: BlockToeplitz, on: Operations) -> None:
        self._operator, self._on = operator, on
        blocks = on.place(operator.blocks)
        self._products = {
            (number, distance): on.product(blocks[number], blocks[number + distance])
            for distance in range(operator.width + 1)
            for number in range(len(blocks) - distance)
        }

    def entry(self, column: int, distance: int) -> Block:
        """Block (J, J + d): the sum of B_tᴴB_{t+d} over the rows i = J − t + P that exist."""
        operator = self._operator
        size = operator.blocks.shape[3]
        total = self._on.zeros(operator.blocks.shape[1], size, size)
        for number in range(len(operator.blocks) - distance):
            if 0 <= column - number + operator.before < operator.rows:
                total += self._products[number, distance]
        return total
