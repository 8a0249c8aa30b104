"""Gram bounds against singular values of 100 digits: never below, and tight."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from pipeline.verify.gram import spectral_upper_bounds


def true_norm(parts: np.ndarray) -> mpmath.mpf:
    """The largest singular value of one complex matrix [2, m, n], 60 digits."""
    with mpmath.workdps(60):
        real, imaginary = (mpmath.matrix(part.tolist()) for part in parts)
        top = max(abs(entry) for entry in [*real, *imaginary])
        if top == 0:
            return mpmath.mpf(0)
        matrix = (real + 1j * imaginary) / top  # graded matrices: keep the SVD's iteration healthy
        return mpmath.svd_c(matrix, compute_uv=False)[0] * top


def adversarial(kind: str, random: np.random.Generator) -> np.ndarray:
    rows, columns = random.integers(1, 7, 2)
    parts = random.standard_normal((2, rows, columns))
    if kind == "real":
        parts[1] = 0
    elif kind == "rank one":
        left, right = random.standard_normal((2, rows)), random.standard_normal(columns)
        parts = left[:, :, None] * right
    elif kind == "signs":
        parts = np.sign(parts)
    elif kind == "unitary":
        square, _ = np.linalg.qr(parts[0, :, :1] + 1j * random.standard_normal((rows, rows)))
        parts = np.stack([square.real, square.imag])
    elif kind == "graded":
        parts = parts * 10.0 ** -random.integers(0, 120, (1, rows, 1))
    elif kind == "subnormal":
        parts = parts * 2.0**-1070
    elif kind == "huge":
        parts = parts * 2.0**1000
    elif kind == "constant":
        parts[:] = 1 / 3
    elif kind == "near-equal":
        parts = parts[:, :1, :] + np.ldexp(parts, -50)
    elif kind == "mixed scales":
        parts = parts * 2.0 ** random.integers(-40, 41, (1, rows, columns))
    return parts


KINDS = ["gaussian", "real", "rank one", "signs", "unitary", "graded", "subnormal", "huge"]
KINDS += ["constant", "near-equal", "mixed scales"]


@pytest.mark.parametrize("kind", KINDS)
def test_never_below_and_tight(kind: str) -> None:
    random = np.random.default_rng(sum(map(ord, kind)))
    for _ in range(25):
        parts = adversarial(kind, random)
        bound = float(spectral_upper_bounds(parts[None], 0.0, levels=30)[0])
        truth = true_norm(parts)
        assert mpmath.mpf(bound) >= truth
        room = 1e-6 if kind == "subnormal" else 1e-8  # a subnormal has few digits: one ulp up
        assert bound <= truth * (1 + room) + mpmath.mpf(2) ** -1073


@pytest.mark.parametrize("levels", [0, 1, 2, 5])
def test_every_level_is_a_bound(levels: int) -> None:
    random = np.random.default_rng(levels)
    stack = random.standard_normal((20, 2, 5, 4))
    bounds = spectral_upper_bounds(stack, 0.0, levels=levels)
    for parts, bound in zip(stack, bounds, strict=True):
        truth = true_norm(parts)
        assert truth <= bound <= truth * 8 ** (2.0 ** -(levels + 1)) * (1 + 1e-12)


def test_all_singular_values_equal() -> None:
    """The slowest case: a Hadamard matrix, where only the number of levels helps."""
    hadamard = np.array([[1.0]])
    for _ in range(6):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    bound = Fraction(float(spectral_upper_bounds(hadamard[None, None], 0.0)[0]))
    assert bound**2 >= 64
    assert bound <= 8 * (1 + Fraction(1, 10**9))


def test_finishes_at_the_target_and_not_below_the_norm() -> None:
    random = np.random.default_rng(3)
    stack = random.standard_normal((30, 1, 12, 12))
    norms = np.linalg.svd(stack[:, 0], compute_uv=False)[:, 0]
    target = float(norms.max()) * (1 + 1e-6)
    assert (spectral_upper_bounds(stack, target) <= target).all()
    below = float(norms.max()) * (1 - 1e-12)
    bounds = spectral_upper_bounds(stack, below)
    assert (bounds > below).sum() == 1
    assert (bounds >= norms * (1 - 1e-14)).all()


def test_zero_and_not_finite() -> None:
    assert 0 <= spectral_upper_bounds(np.zeros((1, 2, 3, 2)), 0.0)[0] < 1e-150
    for bad in (math.nan, math.inf):
        assert spectral_upper_bounds(np.full((1, 1, 2, 2), bad), 1.0)[0] == math.inf
