"""A convolution with one axis on a torus, or none: the block matrices whose norms bound its norm.

Notable: what a certificate says of its proof is a hint here too. A wrapped axis must have a torus
of a valid size; an axis that is not wrapped is taken as it is, with its zero padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from pipeline.verify.banded import Band, least_bound, real_embedding
from pipeline.verify.outward import GROW, Float64
from pipeline.verify.torus import Axis, Torus, block_error, frequencies, twiddles

LARGEST_WORK = 1e15
"""Operations: a hint that asks for more is not followed. 588 channels at 16×16 need 5e14."""
LARGEST_BLOCK = 12288
"""Rows of one block, of which a dozen are held."""
LARGEST_BAND = 2**29
"""Numbers in the blocks of one matrix, 4 GB."""
ONE_PIXEL = Axis(inputs=1, kernel=1, stride=1, padding=0)
"""An axis that is not there."""


def is_feasible(taps: Float64, axes: tuple[Axis, Axis], torus: Torus) -> bool:
    """Whether the proof that is hinted at ends today."""
    exact = 0 if torus.sizes[0] is None else 1
    band, other = axes[exact], axes[1 - exact]
    whole = torus.sizes[1 - exact] is None
    rows, columns = taps.shape[2:]
    high, wide = (other.outputs, other.phases) if whole else (2, 2)
    block = min(rows * high, columns * wide)
    entries = band.taps * rows * high * columns * wide
    times = 1 if whole else other.least_torus + 1
    work = 8.0 * times * max(band.outputs, band.phases) * band.taps**2 * float(block) ** 3
    return block <= LARGEST_BLOCK and entries <= LARGEST_BAND and work <= LARGEST_WORK


def bound_on(
    taps: Float64,
    axes: tuple[Axis, Axis],
    torus: Torus,
    claim: float,
    advance: Callable[[int, int], None],
) -> float:
    """A proved bound of the convolution's norm, at most `claim` if that can be shown.

    taps: [T_h, T_w, O, I·s_h·s_w] of `polyphase`.
    torus: with None as the size of the axis, or of both axes, that are not wrapped.
    """
    whole = torus.sizes == (None, None)
    error = 0.0 if whole else block_error(taps)
    target = (claim - error) * (1 - 2.0**-47)
    largest = 0.0
    size = torus.sizes[0] or torus.sizes[1]
    count = 1 if size is None else size // 2 + 1  # about; for the bar alone
    bands = iter([_whole(taps, axes)]) if whole else _of_frequencies(taps, axes, torus)
    for done, band in enumerate(bands, 1):
        largest = max(largest, (least_bound(band, target) + error) * GROW)
        advance(min(done, count), count)
        if not largest <= claim:
            break
    return largest


def _of_frequencies(taps: Float64, axes: tuple[Axis, Axis], torus: Torus) -> Iterator[Band]:
    """One band for each frequency of the wrapped axis, one of each conjugate pair."""
    wrapped = 0 if torus.sizes[0] is not None else 1
    own = taps if wrapped else taps.swapaxes(0, 1)  # [T_exact, T_wrapped, O, I]
    exact = axes[1 - wrapped]
    line = (ONE_PIXEL, axes[wrapped])
    size, twist = torus.sizes[wrapped], torus.twists[wrapped]
    points = frequencies(line, Torus((1, size), (Fraction(0), twist)))
    waves = twiddles(line, points).reshape(len(points), 2, -1)  # [F, 2, T_wrapped]
    for wave in waves:
        parts = np.einsum("pw,twoi->tpoi", wave, own)
        real = not parts[:, 1].any()
        blocks = parts[:, 0] if real else real_embedding(parts)
        yield Band(np.ascontiguousarray(blocks), exact.before, exact.outputs, exact.phases)


def _whole(taps: Float64, axes: tuple[Axis, Axis]) -> Band:
    """The convolution itself; B_τ is the matrix of one row of pixels to one row of pixels."""
    high, wide = axes
    count, _, rows, columns = taps.shape
    blocks = np.zeros((count, wide.outputs, rows, wide.phases, columns))
    for output in range(wide.outputs):
        first = output - wide.before
        for place in range(max(first, 0), min(first + wide.taps, wide.phases)):
            blocks[:, output, :, place] = taps[:, place - first]
    size = (count, wide.outputs * rows, wide.phases * columns)
    return Band(blocks.reshape(size), high.before, high.outputs, high.phases)
