"""What the banded factorisation does with blocks [P, r, c]: by NumPy, or by torch on a device.

Notable: of both only `product`, `squares` and differences are trusted; `factor` and `solve` may
return anything. A block is an ndarray here and a tensor there, and `banded.py` cannot tell.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from scipy.linalg import solve_triangular

from pipeline.lipschitz.device import factor_on, joined, proving_device, split, squares_on
from pipeline.lipschitz.rounding import Float64, squares_upper

Block = Any
"""[P, r, c] float64, ndarray or tensor; P = 2 is real and imaginary part."""


class Operations(Protocol):
    """On blocks of one kind."""

    def place(self, array: Float64) -> Block:
        """An array as a block, or a stack of blocks."""

    def zeros(self, kinds: int, rows: int, columns: int) -> Block:
        """A block of zeros."""

    def product(self, first: Block, second: Block) -> Block:
        """fl(AᴴB) by one real product: [P, r, c], [P, r, e] -> [P, c, e]."""

    def stacked(self, blocks: list[Block]) -> Block:
        """Blocks below each other: [P, r, c] -> [P, Σr, c]."""

    def shift(self, block: Block, q: float) -> float:
        """Add q to the diagonal of a square block, in place; its largest magnitude afterwards."""

    def squares(self, block: Block) -> float:
        """An upper bound of ‖A‖_F²."""

    def factor(self, block: Block) -> Block | None:
        """R with RᴴR ≈ the block, or None. Not trusted."""

    def solve(self, corner: Block, right: Block) -> Block:
        """X with RᴴX ≈ right, R upper triangular. Not trusted."""


def operations() -> Operations:
    """Those of the device of proofs."""
    device = proving_device()
    return OnHost() if device is None else OnDevice(device)


class OnHost:
    """NumPy and LAPACK."""

    def place(self, array: Float64) -> Block:
        """Itself."""
        return array

    def zeros(self, kinds: int, rows: int, columns: int) -> Block:
        """See `Operations`."""
        return np.zeros((kinds, rows, columns))

    def product(self, first: Block, second: Block) -> Block:
        """See `Operations`."""
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

    def stacked(self, blocks: list[Block]) -> Block:
        """See `Operations`."""
        return np.concatenate(blocks, axis=1)

    def shift(self, block: Block, q: float) -> float:
        """See `Operations`."""
        diagonal = np.einsum("ii->i", block[0])  # a view
        diagonal += q
        return float(np.abs(diagonal).max())

    def squares(self, block: Block) -> float:
        """See `Operations`."""
        return float(squares_upper(block[None])[0])

    def factor(self, block: Block) -> Block | None:
        """See `Operations`."""
        whole = block[0] if len(block) == 1 else block[0] + 1j * block[1]
        try:
            lower = np.linalg.cholesky(whole)
        except np.linalg.LinAlgError:
            return None
        return self._parts(lower.conj().T, len(block))

    def solve(self, corner: Block, right: Block) -> Block:
        """See `Operations`."""
        if len(corner) == 1:
            solved = solve_triangular(corner[0], right[0], trans="T", check_finite=False)
        else:
            whole, target = (part[0] + 1j * part[1] for part in (corner, right))
            solved = solve_triangular(whole, target, trans="C", check_finite=False)
        return self._parts(solved, len(corner))

    def _parts(self, matrix: np.ndarray, kinds: int) -> Float64:
        parts = matrix[None] if kinds == 1 else np.stack([matrix.real, matrix.imag])
        return np.ascontiguousarray(parts)


class OnDevice:
    """torch in float64."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def place(self, array: Float64) -> Block:
        """A copy on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def zeros(self, kinds: int, rows: int, columns: int) -> Block:
        """See `Operations`."""
        return torch.zeros(kinds, rows, columns, dtype=torch.float64, device=self._device)

    def product(self, first: Block, second: Block) -> Block:
        """See `Operations`."""
        kinds, rows, columns = first.shape
        stacked = first.reshape(kinds * rows, columns)
        if kinds == 1:
            return (stacked.T @ second[0])[None]
        right = torch.cat([second.reshape(2 * rows, -1), torch.cat([second[1], -second[0]])], dim=1)
        both = stacked.T @ right
        width = second.shape[2]
        return torch.stack([both[:, :width], both[:, width:]])

    def stacked(self, blocks: list[Block]) -> Block:
        """See `Operations`."""
        return torch.cat(blocks, dim=1)

    def shift(self, block: Block, q: float) -> float:
        """See `Operations`."""
        diagonal = block[0].diagonal()  # a view
        diagonal += q
        return float(diagonal.abs().max())

    def squares(self, block: Block) -> float:
        """See `Operations`."""
        return float(squares_on(block[None])[0])

    def factor(self, block: Block) -> Block | None:
        """Never None: what cannot be factored leaves a large residual, or none that is finite."""
        return factor_on(block[None])[0]

    def solve(self, corner: Block, right: Block) -> Block:
        """See `Operations`."""
        whole, target = joined(corner[None])[0], joined(right[None])[0]
        solved = torch.linalg.solve_triangular(whole.mH, target, upper=False)
        return split(solved[None], len(corner))[0]
