"""Certified norm of a convolution with at most one axis on a torus: 0.1 percent from the truth.

Theorem 1 (docs/certificate.md §2) holds for each axis by itself. Wrapping one axis only gives a
block-Toeplitz operator for each of its frequencies (the *semi-torus*), whose norms lie between that
of the convolution and that of the torus; wrapping none leaves the convolution, one such operator.

Notable:
- The operator itself where it is cheap enough (64 channels at 16×16: ten seconds on a core), else
  the semi-torus that seems to be lowest, among both axes and half-twists. A proof that fails leaves
  the torus' bound.
- Strides that do not divide the input keep the phases beyond its end: a superset of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline.lipschitz.banded import BlockToeplitz, banded_upper, largest_square
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.conv import conv2d_norm_bound, geometry
from pipeline.lipschitz.device import proving_device
from pipeline.lipschitz.evidence import published, trivial_bound
from pipeline.lipschitz.parallel import map_in_order
from pipeline.lipschitz.polyphase import Axis, polyphase
from pipeline.lipschitz.rounding import Float64, mul_up, scaled_to_one, silent, sqrt_upper
from pipeline.lipschitz.spectral import SpectralBound
from pipeline.lipschitz.torus import TorusBlocks

WHOLE_WORK = 5e11
"""Floating-point operations up to which the operator itself is factored: seconds of a core."""
WHOLE_WORK_ON_DEVICE = 1e13
"""The same on another device: 128 channels at 16×16. Beyond it a dozen blocks fill its memory."""
ROUGH_STEPS = 16
FINE_STEPS = 200
STEEPEST = 2
"""Frequencies of each semi-torus whose norm is estimated in double precision."""
MARGINS = (1e-6, 1e-5, 1e-4, 1e-3)
"""q above the estimate of ‖T‖², relative; half of it ends up in the bound."""


@silent
def tight_conv2d_norm_bound(
    weight: Any,
    input_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> NormBound:
    """As `certified_conv2d_norm`, nearer to the norm and more costly; with evidence.

    Raises:
        ValueError: as `certified_conv2d_norm`.
    """
    kernel, axes, size = geometry(weight, input_size, stride, padding)
    trivial = trivial_bound(kernel)
    if trivial is not None:
        return trivial
    scaled, exponent = scaled_to_one(kernel)
    taps = polyphase(scaled, axes)
    if taps.shape[:2] == (1, 1):  # the torus is exact
        return conv2d_norm_bound(weight, input_size, stride, padding)
    whole = Whole(taps, axes, size)
    if whole.work() <= (WHOLE_WORK if proving_device() is None else WHOLE_WORK_ON_DEVICE):
        [operator] = whole.operators()
        estimate = map_in_order(lambda item: largest_square(item, FINE_STEPS), [operator])[0]
        bound = _prove(whole, estimate, exponent)
    else:
        bound = _prove(*_most_promising(taps, axes, size), exponent)
    return bound or conv2d_norm_bound(weight, input_size, stride, padding)


@dataclass(frozen=True, eq=False)
class Whole:
    """The convolution itself: Toeplitz in its rows, its blocks Toeplitz in its columns."""

    taps: Float64
    """[T_h, T_w, O, I·phases]."""
    axes: tuple[Axis, Axis]
    size: tuple[int, int]
    name = "whole"
    error = 0.0

    @property
    def evidence(self) -> dict[str, Any]:
        """What repeats the proof: neither axis is wrapped."""
        return {"torus": [None, None], "twist": [None, None]}

    def operators(self) -> Iterator[BlockToeplitz]:
        """One real operator, its blocks exact."""
        count, _, high, wide = self.taps.shape
        rows, columns = _lengths(self.axes[1], self.size[1])
        blocks = np.zeros((count, 1, rows, high, columns, wide))
        for row in range(rows):
            for number, tap in enumerate(self.taps.swapaxes(0, 1)):
                column = row + number - self.axes[1].before
                if 0 <= column < columns:
                    blocks[:, 0, row, :, column] = tap
        flat = blocks.reshape(count, 1, rows * high, columns * wide)
        lengths = _lengths(self.axes[0], self.size[0])
        yield BlockToeplitz(flat, self.axes[0].before, *lengths).upright()

    def work(self) -> float:
        """Of the proof, without forming the blocks."""
        (rows, columns), (high, wide) = (
            _lengths(axis, n) for axis, n in zip(self.axes, self.size, strict=True)
        )
        count, _, outputs, inputs = self.taps.shape
        width = min(count, columns) - 1
        block = min(high * outputs, wide * inputs)
        return float(max(rows, columns)) * (width + 1) * (width + 4) * float(block) ** 3


@dataclass(frozen=True, eq=False)
class SemiTorus:
    """One axis wrapped: an operator for each of its frequencies, half of them by conjugation."""

    taps: Float64
    """[T_exact, T_wrapped, O, I·phases]."""
    before: int
    """P of the axis that is not wrapped."""
    lengths: tuple[int, int]
    """(m, n') of that axis."""
    wrapped: int
    """0 if it is the rows that are wrapped, 1 if it is the columns."""
    torus: int
    """N of the wrapped axis."""
    half: int
    """2φ of the wrapped axis, 0 or 1."""
    name = "semi-torus"

    @property
    def line(self) -> TorusBlocks:
        """The wrapped axis alone, the blocks of the other one below each other."""
        count, wrapped, high, wide = self.taps.shape
        below = self.taps.swapaxes(0, 1).reshape(1, wrapped, count * high, wide)
        return TorusBlocks(below, (1, self.torus), (0, self.half))

    @property
    def error(self) -> float:
        """‖computed − exact operator‖: of a Toeplitz sum of blocks, √T times that of the stack."""
        return mul_up(self.line.error, sqrt_upper(float(len(self.taps))))

    @property
    def evidence(self) -> dict[str, Any]:
        """What repeats the proof."""
        torus: list[Any] = [None, None]
        twist: list[Any] = [None, None]
        torus[self.wrapped], twist[self.wrapped] = self.torus, "1/2" if self.half else "0"
        return {"torus": torus, "twist": twist}

    def operators(self) -> Iterator[BlockToeplitz]:
        """One for each frequency, in order."""
        line = self.line
        for number in range(len(line)):
            yield self.operator(line, number)

    def operator(self, line: TorusBlocks, number: int) -> BlockToeplitz:
        """That of one frequency."""
        parts = line.parts(np.array([number]))[0]  # [P, T·O, I]
        count, _, high, wide = self.taps.shape
        blocks = parts.reshape(len(parts), count, high, wide).swapaxes(0, 1)
        return BlockToeplitz(np.ascontiguousarray(blocks), self.before, *self.lengths).upright()


def _prove(choice: Whole | SemiTorus, estimate: float, exponent: int) -> NormBound | None:
    """The published bound, with the least margin for which all is proved; None if none is."""
    for margin in MARGINS:
        q = estimate * (1 + margin)
        bounds = map_in_order(partial(banded_upper, q=q), choice.operators())
        if max(bounds) < np.inf:
            proof = SpectralBound(max(bounds), "cholesky", q)
            evidence = {**choice.evidence, "blocks": len(bounds)}
            return published(choice.name, proof, choice.error, exponent, evidence)
    return None


def _most_promising(
    taps: Float64, axes: tuple[Axis, Axis], size: tuple[int, int]
) -> tuple[SemiTorus, float]:
    """The semi-torus that seems to have the least bound, and an estimate of its largest σ²."""
    choices = [
        SemiTorus(
            np.ascontiguousarray(taps if wrapped else taps.swapaxes(0, 1)),
            axes[1 - wrapped].before,
            _lengths(axes[1 - wrapped], size[1 - wrapped]),
            wrapped,
            axes[wrapped].torus(size[wrapped]),
            half,
        )
        for wrapped in (0, 1)
        for half in ((0, 1) if taps.shape[wrapped] > 1 else (0,))
    ]
    estimates = [_largest_square(choice) for choice in choices]
    best = min(range(len(choices)), key=estimates.__getitem__)
    return choices[best], estimates[best]


def _largest_square(choice: SemiTorus) -> float:
    """Estimate of the largest σ² over the frequencies: roughly all, finely the steepest."""
    line = choice.line

    def rough(number: int) -> float:
        return largest_square(choice.operator(line, number), ROUGH_STEPS)

    def fine(number: int) -> float:
        return largest_square(choice.operator(line, number), FINE_STEPS)

    squares = map_in_order(rough, range(len(line)))
    steepest = sorted(range(len(line)), key=lambda number: -squares[number])[:STEEPEST]
    return max(map_in_order(fine, steepest))


def _lengths(axis: Axis, inputs: int) -> tuple[int, int]:
    """(m, n'): outputs, and inputs of a phase."""
    return axis.outputs(inputs), -(-inputs // axis.stride)
