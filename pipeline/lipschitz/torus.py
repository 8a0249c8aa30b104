"""The frequency blocks of a convolution on a twisted torus, computed without an FFT library.

A(a, b) = Σ_{τ,υ} W_{τυ} e^{2πi(aτ + bυ)} at a = (f + φ)/N of each axis, φ in {0, ½}
(docs/certificate.md §2, Theorem 1).

Notable:
- Angles are reduced as exact integers, 2N·s-ths of a turn; cosine and sine come from 200-bit
  arithmetic and are rounded once. (`numpy.cos(2πa/N)` is off by up to ten times as much.)
- Sequences are counted from the first tap: the offset −P would be a factor of modulus 1 on a block.
- The kernel is real, so (a, b) and (−a, −b) have conjugate blocks: one of each pair is enough.
- An axis with one tap contributes a factor of modulus 1 only: one frequency is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import mpmath
import numpy as np
from numpy.typing import NDArray

from pipeline.lipschitz.rounding import (
    UNDERFLOW,
    Float64,
    add_up,
    frobenius_upper,
    gamma,
    mul_up,
    sum_upper,
)


@dataclass(frozen=True, eq=False)
class TorusBlocks:
    """All blocks of one convolution on one torus with one twist."""

    taps: Float64
    """[T_h, T_w, m, n], of magnitude at most 1, m ≥ n (a transpose has the same norm)."""
    sizes: tuple[int, int]
    """(N_h, N_w)."""
    halves: tuple[int, int]
    """(2φ_h, 2φ_w), each 0 or 1."""

    @cached_property
    def frequencies(self) -> NDArray[np.int64]:
        """[F, 2]: frequencies (a, b) in 1/(2N_h) and 1/(2N_w) of a turn, half the spectrum."""
        grids = [
            2 * np.arange(size) + half if count > 1 else np.zeros(1, dtype=np.int64)
            for size, half, count in zip(self.sizes, self.halves, self.taps.shape[:2], strict=True)
        ]
        points = np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1).reshape(-1, 2)
        turn = 2 * np.array(self.sizes)
        mirrored = -points % turn
        number, mirror = points @ [turn[1], 1], mirrored @ [turn[1], 1]
        return np.asarray(points[number <= mirror])

    def __len__(self) -> int:
        return len(self.frequencies)

    @cached_property
    def twiddles(self) -> Float64:
        """[2F, T]: for each frequency a row of cosines and one of sines, off by at most u/2."""
        steps = math.lcm(2 * self.sizes[0], 2 * self.sizes[1])  # parts of a turn, all angles exact
        a, b = (self.frequencies[:, i] * (steps // (2 * self.sizes[i])) for i in range(2))
        high, wide = (np.arange(count) for count in self.taps.shape[:2])
        angles = a[:, None, None] * high[:, None] + b[:, None, None] * wide  # [F, T_h, T_w]
        distinct, where = np.unique(angles % steps, return_inverse=True)
        table = np.array([_cos_sin(Fraction(int(angle), steps)) for angle in distinct])
        picked = table[where.reshape(len(self), -1)]  # [F, T, 2]
        return np.ascontiguousarray(picked.transpose(0, 2, 1)).reshape(2 * len(self), -1)

    def parts(self, which: slice | NDArray[np.int64]) -> Float64:
        """Real and imaginary parts of some blocks: [f, 2, m, n] ([f, 1, m, n] for a single tap)."""
        rows, columns = self.taps.shape[2:]
        if self.is_exact:
            return self.taps.reshape(1, 1, rows, columns)
        chosen = self.twiddles.reshape(len(self), 2, -1)[which]
        flat = self.taps.reshape(-1, rows * columns)
        return (chosen.reshape(-1, len(flat)) @ flat).reshape(-1, 2, rows, columns)

    def rough(self, which: slice) -> NDArray[np.complex64]:
        """Some blocks in single precision, for estimates: [f, m, n]."""
        rows, columns = self.taps.shape[2:]
        chosen = self.twiddles.reshape(len(self), 2, -1)[which].astype(np.float32)
        parts = chosen.reshape(-1, chosen.shape[-1]) @ self._rough_taps
        parts = parts.reshape(-1, 2, rows, columns)
        return np.asarray(parts[:, 0] + np.complex64(1j) * parts[:, 1])

    @cached_property
    def _rough_taps(self) -> NDArray[np.float32]:
        return self.taps.astype(np.float32).reshape(-1, self.taps.shape[2] * self.taps.shape[3])

    @property
    def is_exact(self) -> bool:
        """One tap: the only block is the reshaped kernel, and nothing is rounded."""
        return self.taps.shape[:2] == (1, 1)

    @cached_property
    def error(self) -> float:
        """Upper bound of ‖computed block − exact block‖, the same for every frequency.

        Each entry is off by at most γ_{T+2} Σ_t |W_t| in modulus (docs/certificate.md §2), T
        products may underflow in each part, and the Frobenius norm bounds the 2-norm.
        """
        if self.is_exact:
            return 0.0
        count = self.taps.shape[0] * self.taps.shape[1]
        sums = sum_upper(np.abs(self.taps), axis=(0, 1))
        return add_up(
            mul_up(frobenius_upper(sums), gamma(count + 2)), 2 * sums.size * count * UNDERFLOW
        )


@lru_cache(maxsize=2**16)
def _cos_sin(turn: Fraction) -> tuple[float, float]:
    """Cosine and sine of a fraction of a turn, correctly rounded; layers share them."""
    with mpmath.workprec(200):
        angle = mpmath.mpf(2 * turn.numerator) / turn.denominator
        return float(mpmath.cospi(angle)), float(mpmath.sinpi(angle))
