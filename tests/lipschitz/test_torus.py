"""Frequency blocks against 60-digit arithmetic; the half spectrum; twists."""

import math

import mpmath
import numpy as np
import pytest

from pipeline.lipschitz.spectral import spectral_upper
from pipeline.lipschitz.torus import TorusBlocks

ALL_HALVES = [(0, 0), (0, 1), (1, 0), (1, 1)]


def exact_block(taps, sizes, point):
    """Σ W_{τυ} e^{2πi(aτ + bυ)} at (a, b) = point/(2N), with 60 digits: list of rows."""
    with mpmath.workdps(60):
        a, b = (mpmath.mpf(int(x)) / (2 * size) for x, size in zip(point, sizes, strict=True))
        high, wide, rows, columns = taps.shape
        return [
            [
                mpmath.fsum(
                    mpmath.mpf(float(taps[t, v, o, c])) * mpmath.expjpi(2 * (a * t + b * v))
                    for t in range(high)
                    for v in range(wide)
                )
                for c in range(columns)
            ]
            for o in range(rows)
        ]


@pytest.mark.parametrize("seed", range(6))
def test_block_entries_are_within_the_stated_error(seed):
    rng = np.random.default_rng(seed)
    taps = rng.uniform(-1, 1, (3, 2, 2, 2))
    if seed % 2:  # a wide range of magnitudes, down to 2^-900
        taps = np.ldexp(taps, -rng.integers(0, 900, taps.shape))
    blocks = TorusBlocks(taps, (5, 4 + seed), (seed % 2, seed // 2 % 2))
    parts = blocks.parts(slice(None))
    worst = mpmath.mpf(0)
    for point, part in zip(blocks.frequencies, parts, strict=True):
        truth = exact_block(taps, blocks.sizes, point)
        squares = mpmath.fsum(
            abs(mpmath.mpc(float(part[0, o, c]), float(part[1, o, c])) - truth[o][c]) ** 2
            for o in range(2)
            for c in range(2)
        )
        worst = max(worst, mpmath.sqrt(squares))
    assert 0 < worst <= blocks.error < 1e-13


@pytest.mark.parametrize("halves", ALL_HALVES)
@pytest.mark.parametrize("sizes", [(3, 4), (5, 5), (4, 4), (1, 2), (2, 7)])
def test_half_the_spectrum_is_enough(sizes, halves):
    taps = np.random.default_rng(1).standard_normal((2, 3, 3, 2))
    blocks = TorusBlocks(taps, sizes, halves)
    half = np.linalg.norm([p[0] + 1j * p[1] for p in blocks.parts(slice(None))], 2, axis=(1, 2))
    turns = [(np.arange(n) + h / 2) / n for n, h in zip(sizes, halves, strict=True)]
    phases = [
        np.exp(2j * np.pi * np.outer(turn, np.arange(count)))
        for turn, count in zip(turns, taps.shape[:2], strict=True)
    ]
    full = np.einsum("at,bv,tvoc->aboc", *phases, taps).reshape(-1, 3, 2)
    norms = np.linalg.norm(full, 2, axis=(1, 2))
    assert len(half) <= sizes[0] * sizes[1] // 2 + 2
    # every singular value of the full spectrum appears, and no other
    assert np.abs(norms[:, None] - half).min(axis=1).max() < 1e-12
    assert np.abs(norms[:, None] - half).min(axis=0).max() < 1e-12


def test_half_the_spectrum_of_17_by_17_has_145_blocks():
    taps = np.ones((3, 3, 1, 1))
    assert {len(TorusBlocks(taps, (17, 17), halves)) for halves in ALL_HALVES} == {145}


def test_one_tap_needs_one_block_and_is_exact():
    taps = np.random.default_rng(2).standard_normal((1, 1, 4, 3))
    blocks = TorusBlocks(taps, (9, 9), (0, 0))
    assert len(blocks) == 1
    assert blocks.error == 0.0
    assert np.array_equal(blocks.parts(slice(None)), taps)
    assert len(TorusBlocks(np.ones((1, 3, 1, 1)), (9, 9), (0, 0))) == 5


def test_half_twist_of_the_tridiagonal_kernel_gives_the_exact_norm():
    """[1, 1, 1] on 16 pixels: the matrix is tridiagonal, its norm 1 + 2cos(π/17)."""
    taps = np.ones((1, 3, 1, 1))
    truth = 1 + 2 * math.cos(math.pi / 17)
    norms = [
        spectral_upper(TorusBlocks(taps, (1, 17), (0, half)).parts(slice(None))).value
        for half in (0, 1)
    ]
    assert norms[0] == pytest.approx(3, rel=1e-6)
    assert truth <= norms[1] <= truth * (1 + 2e-7)
