"""A zero-padded, strided convolution as a corner of a twisted torus, and its frequency blocks.

Theorem (docs/certificate.md §2). Per axis let n be the input length, k the kernel, s the stride, p
the padding, m = ⌊(n + 2p − k)/s⌋ + 1 the output length, n' = ⌈n/s⌉, P = ⌈p/s⌉, Q = ⌊(k−1−p)/s⌋.
With x_r[J] = x[sJ + r] the convolution is y[i] = Σ_{r, −P≤τ≤Q} w_{r,τ} x_r[i + τ]. For every
N ≥ max(n', m, n' + P, m + Q) and every twist φ, sequences with x[J + N] = e^{2πiφ} x[J] contain it
as a corner without alias, so that its norm is at most the largest norm of the blocks
A(a, b) = Σ_{τ,υ} W_{τυ} e^{2πi(aτ + bυ)} at the frequencies a = (f + φ)/N of each axis.

Notable:
- Nothing in the evidence of a certificate is trusted: `Axis.least_torus` says which N are valid,
  and *any* twist is.
- An axis with a single tap contributes a phase of modulus 1 only: one frequency is enough.
- The kernel is real, so the frequencies (a, b) and (−a, −b) have conjugate blocks: one is enough.
- Phases are exact rationals of a turn; cosine and sine come from mpmath at 200 bit, rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np

from pipeline.verify.outward import (
    GROW,
    Float64,
    ceil_float,
    gamma,
    norm_upper,
    sqrt_ceil,
)

BLOCK_BYTES = 160 * 2**20
"""Memory of the blocks that are formed at once; Gram iteration needs about five times as much."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution: lengths in pixels, polyphase lengths in strides."""

    inputs: int
    kernel: int
    stride: int
    padding: int

    @property
    def outputs(self) -> int:
        """m; not positive where the kernel does not fit."""
        return (self.inputs + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def before(self) -> int:
        """P: taps reach from −P."""
        return -(-self.padding // self.stride)

    @property
    def after(self) -> int:
        """Q: to +Q (Q may be negative)."""
        return (self.kernel - 1 - self.padding) // self.stride

    @property
    def taps(self) -> int:
        """P + Q + 1, the number of polyphase taps."""
        return self.before + self.after + 1

    @property
    def phases(self) -> int:
        """n' = ⌈n/s⌉, the length of a phase of the input."""
        return -(-self.inputs // self.stride)

    @property
    def least_torus(self) -> int:
        """The least N for which the theorem holds.

        At stride 1, output rows that see padding only are zero whatever the input: dropping them is
        the same operator with padding k − 1.
        """
        if self.stride == 1 and self.padding > self.kernel - 1:
            return Axis(self.inputs, self.kernel, 1, self.kernel - 1).least_torus
        return max(self.phases, self.outputs, self.phases + self.before, self.outputs + self.after)


@dataclass(frozen=True)
class Torus:
    """A choice of torus sizes and twists; any twist in [0, 1) is valid, N must be large enough.

    None is the size of an axis that is not wrapped (semi_torus.py); its twist means nothing.
    """

    sizes: tuple[int | None, int | None]
    twists: tuple[Fraction, Fraction]

    @property
    def is_closed(self) -> bool:
        """Both axes are wrapped."""
        return None not in self.sizes

    def __str__(self) -> str:
        (rows, columns), (first, second) = self.sizes, self.twists
        if self.is_closed:
            return f"{rows}x{columns} torus, twists {first} and {second}"
        if (rows, columns) == (None, None):
            return "the operator itself"
        along, size, twist = (
            ("rows", rows, first) if rows is not None else ("columns", columns, second)
        )
        return f"a semi-torus, {along} wrapped at {size} with twist {twist}"


def polyphase(weight: Float64, axes: tuple[Axis, Axis]) -> Float64:
    """Kernel [O, I, kh, kw] -> taps [T_h, T_w, O, I·s_h·s_w], first tap at offset (−P_h, −P_w).

    The kernel is extended by zeros to whole strides, P·s − p of them in front; tap number τ + P and
    phase r are then quotient and remainder of the position.
    """
    outputs, inputs = weight.shape[:2]
    widths = [(0, 0), (0, 0)]
    for axis in axes:
        front = axis.before * axis.stride - axis.padding
        widths.append((front, axis.taps * axis.stride - front - axis.kernel))
    high, wide = axes
    cut = np.pad(weight, widths).reshape(
        outputs, inputs, high.taps, high.stride, wide.taps, wide.stride
    )
    taps = cut.transpose(2, 4, 0, 1, 3, 5)
    return np.ascontiguousarray(taps).reshape(high.taps, wide.taps, outputs, -1)


def frequencies(axes: tuple[Axis, Axis], torus: Torus) -> list[tuple[Fraction, Fraction]]:
    """The frequencies (turns per step) whose blocks bound the norm, one of each conjugate pair."""
    grids = [
        [(index + twist) / size for index in range(size)]
        if axis.taps > 1 and size is not None
        else [Fraction(0)]
        for axis, size, twist in zip(axes, torus.sizes, torus.twists, strict=True)
    ]
    chosen: dict[tuple[Fraction, Fraction], None] = {}
    for first in grids[0]:
        for second in grids[1]:
            if (-first % 1, -second % 1) not in chosen:
                chosen[first % 1, second % 1] = None
    return list(chosen)


def frequency_blocks(
    taps: Float64, axes: tuple[Axis, Axis], points: list[tuple[Fraction, Fraction]]
) -> Iterator[Float64]:
    """The blocks at `points` in their order, in chunks [F, 2, m, n] with m ≥ n (parts re, im).

    A block with more columns than rows comes transposed, which has the same norm. `block_error`
    bounds what rounding did to any of them.
    """
    outputs, inputs = taps.shape[2:]
    flat = taps.reshape(-1, outputs * inputs)
    chunk = max(1, BLOCK_BYTES // (16 * outputs * inputs))
    for start in range(0, len(points), chunk):
        phases = twiddles(axes, points[start : start + chunk])  # [2F, T]
        blocks = (phases @ flat).reshape(-1, 2, outputs, inputs)
        if inputs > outputs:
            blocks = np.ascontiguousarray(blocks.transpose(0, 1, 3, 2))
        yield blocks


def block_error(taps: Float64) -> float:
    """A bound of the spectral norm of (computed − exact block), the same for every frequency.

    An entry's real and imaginary part are sums of T products with a twiddle that is off by at most
    u: each is off by at most γ_{T+2} Σ|w|, plus underflow, the modulus by √2 times that; the
    Frobenius norm over the block does the rest.
    """
    count = taps.shape[0] * taps.shape[1]
    sums = np.abs(taps).sum(axis=(0, 1)) * ceil_float(1 + 2 * gamma(count))
    largest = float(norm_upper(sums, (0, 1)))
    factor = ceil_float(Fraction(sqrt_ceil(Fraction(2))) * gamma(count + 2))
    return (largest * factor + sums.size * count * 2.0**-1020) * GROW


def twiddles(axes: tuple[Axis, Axis], points: list[tuple[Fraction, Fraction]]) -> Float64:
    """cos and sin of 2π(aτ + bυ): [2F, T], two rows for each of F points, off by ≤ 2^-53."""
    steps = math.lcm(*(part.denominator for point in points for part in point))
    offsets = [np.arange(-axis.before, axis.after + 1) for axis in axes]
    numerators = np.array([[int(part * steps) for part in point] for point in points])  # [F, 2]
    turns = (
        numerators[:, 0, None, None] * offsets[0][:, None]
        + numerators[:, 1, None, None] * offsets[1][None, :]
    ) % steps  # exact integers: a turn has `steps` of them
    distinct, where = np.unique(turns, return_inverse=True)
    with mpmath.workprec(200):
        angles = [mpmath.mpf(2 * int(turn)) / steps for turn in distinct]
        table = np.array([[float(mpmath.cospi(x)), float(mpmath.sinpi(x))] for x in angles])
    picked = table[where.reshape(len(points), -1)]  # [F, T, 2]
    return np.ascontiguousarray(picked.transpose(0, 2, 1)).reshape(2 * len(points), -1)
