"""Matrices that are known up to a proved error, and their sums, products and norms.

Notable: an exact matrix A* is stored as a computed A with ‖A − A*‖ ≤ e (2-norm). A product of two
such is off by e_A(‖B‖ + e_B) + ‖A‖e_B from their exact product, and by γ_n·‖|A|‖·‖|B|‖ through its
own rounding; Frobenius norms stand in for the norms here, which costs digits of 1e-14 and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.rounding import (
    UNDERFLOW,
    UNIT,
    Float64,
    add_up,
    frobenius_upper,
    gamma,
    mul_up,
)
from pipeline.lipschitz.wide import wide_norm_bound


@dataclass(frozen=True, eq=False)
class Inexact:
    """A computed matrix and how far the exact one may be."""

    matrix: Float64
    """[m, n]."""
    error: float = 0.0
    """In 2-norm."""

    @cached_property
    def size(self) -> float:
        """Upper bound of the Frobenius norm of `matrix`, hence of ‖matrix‖ and of ‖|matrix|‖."""
        return frobenius_upper(self.matrix)

    def __matmul__(self, other: Inexact) -> Inexact:
        terms = self.matrix.shape[1]
        from_errors = add_up(
            mul_up(self.error, add_up(other.size, other.error)), mul_up(self.size, other.error)
        )
        rounding = mul_up(gamma(terms + 1), self.size, other.size)
        lost = self.matrix.shape[0] * terms * other.matrix.shape[1] * UNDERFLOW
        return Inexact(self.matrix @ other.matrix, add_up(from_errors, rounding, lost))

    def __add__(self, other: Inexact) -> Inexact:
        total = Inexact(self.matrix + other.matrix)
        rounding = mul_up(2 * UNIT, total.size)
        return Inexact(total.matrix, add_up(self.error, other.error, rounding))

    def scaled(self, factor: float) -> Inexact:
        """`factor` ≥ 0 times it."""
        product = Inexact(self.matrix * factor)
        error = mul_up(self.error, factor)
        lost = self.matrix.size * UNDERFLOW
        return Inexact(product.matrix, add_up(error, mul_up(2 * UNIT, product.size), lost))

    def norm_bound(self) -> NormBound:
        """Upper bound of the norm of the exact matrix, by Cholesky."""
        if not self.matrix.any() and self.error == 0:
            return NormBound(0.0, "zero")
        wide = self.matrix if self.matrix.shape[0] <= self.matrix.shape[1] else self.matrix.T
        return wide_norm_bound(torch.from_numpy(np.array(wide, order="C")), self.error)
