"""The verifier's own semi-torus and whole operator, against explicit matrices."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline.verify import banded, semi_torus
from pipeline.verify.banded import Band, least_bound, real_embedding, transposed
from pipeline.verify.convolutions import hint_of
from pipeline.verify.norms import is_valid, prove_convolution
from pipeline.verify.torus import Axis, Torus, polyphase
from tests.lipschitz.explicit import convolution_norm, kernel_of


def draw(seed: int) -> Band:
    rng = np.random.default_rng(seed)
    count, high, wide = (int(n) for n in rng.integers(1, 5, 3))
    rows, columns = (int(n) for n in rng.integers(1, 7, 2))
    blocks = rng.standard_normal((count, high, wide))
    return Band(blocks, int(rng.integers(0, count)), rows, columns)


def explicit(band: Band) -> np.ndarray:
    _, high, wide = band.blocks.shape
    matrix = np.zeros((band.rows, high, band.columns, wide))
    for i in range(band.rows):
        for j in range(band.columns):
            number = j - i + band.before
            if 0 <= number < len(band.blocks):
                matrix[i, :, j] = band.blocks[number]
    return matrix.reshape(band.rows * high, -1)


@pytest.mark.parametrize("seed", range(50))
def test_claims_are_proved_just_above_the_norm_and_never_below(seed: int) -> None:
    band = draw(seed)
    truth = float(np.linalg.norm(explicit(band), 2))
    assert np.array_equal(explicit(transposed(band)), explicit(band).T)
    if truth == 0:
        return
    assert truth <= least_bound(band, truth * (1 + 1e-6)) <= truth * (1 + 1e-6)
    for share in (0.5, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12):
        assert least_bound(band, truth * share) > truth * (1 - 1e-13)


def test_a_wrong_factor_gives_no_low_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    root, divided = banded._square_root, banded._divided
    rng = np.random.default_rng(0)
    for seed in range(20):
        band = draw(seed)
        truth = float(np.linalg.norm(explicit(band), 2))
        for scale in (1e-9, 1e-2, 1e100, np.nan):

            def spoil(matrix, scale=scale):
                return None if matrix is None else matrix + scale * rng.standard_normal()

            monkeypatch.setattr(banded, "_square_root", lambda m, f=spoil: f(root(m)))
            monkeypatch.setattr(banded, "_divided", lambda m, c, f=spoil: f(divided(m, c)))
            for share in (0.3, 1.0, 3.0):
                assert least_bound(band, truth * share) >= truth * (1 - 1e-13)


def test_the_real_embedding_keeps_the_norm() -> None:
    rng = np.random.default_rng(1)
    parts = rng.standard_normal((2, 4, 3))
    norm = np.linalg.norm(parts[0] + 1j * parts[1], 2)
    assert np.linalg.norm(real_embedding(parts), 2) == pytest.approx(norm)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sizes", [(None, None), (None, 0), (0, None)])
def test_no_claim_below_the_convolution_is_proved(seed: int, sizes: tuple) -> None:
    rng = np.random.default_rng(seed)
    n, k = rng.integers(3, 7, 2), rng.integers(1, 4, 2)
    s, p = rng.integers(1, 3, 2), rng.integers(0, 2, 2)
    shape = (int(rng.integers(1, 3)), int(rng.integers(1, 3)), *(int(x) for x in k))
    weight = kernel_of("random", shape, seed)
    axes = tuple(Axis(*(int(x) for x in numbers)) for numbers in zip(n, k, s, p, strict=True))
    truth = convolution_norm(weight, n, s, p)
    real = tuple(
        None if size is None else axis.least_torus for size, axis in zip(sizes, axes, strict=True)
    )
    torus = Torus(real, (Fraction(1, 2), Fraction(1, 2)))
    assert is_valid(torus, axes)
    taps = polyphase(weight, axes)
    if torus.sizes == (None, None) and (n % s == 0).all():
        assert semi_torus.bound_on(taps, axes, torus, truth * (1 + 1e-6), lambda d, t: None) <= (
            truth * (1 + 1e-6)
        )
    for share in (1 - 1e-9, 1.0 - 1e-6):
        bound = semi_torus.bound_on(taps, axes, torus, truth * share, lambda d, t: None)
        assert bound > truth * (1 - 1e-12)
    assert not prove_convolution(weight, axes, truth * (1 - 1e-6), torus, lambda d, t: None).holds


def test_hints_of_other_kinds() -> None:
    found = hint_of({"torus": [None, 9], "twist": [None, "1/2"]})
    assert found == Torus((None, 9), (Fraction(0), Fraction(1, 2)))
    assert hint_of({"torus": [None, None], "twist": [None, None]}).sizes == (None, None)
    for evidence in (
        {"torus": [None], "twist": [None]},
        {"torus": [None, "x"], "twist": [None, "0"]},
        {"torus": [9, None], "twist": [None, None]},
        {"torus": [None, 9], "twist": [None, "1e999999"]},
        {"torus": None, "twist": None},
    ):
        assert hint_of(evidence) is None
    axes = (Axis(8, 3, 1, 1), Axis(8, 3, 1, 1))
    assert not is_valid(Torus((None, 8), (Fraction(0), Fraction(0))), axes)  # circ(n)
    assert is_valid(Torus((None, 9), (Fraction(0), Fraction(0))), axes)


def test_a_hint_cannot_ask_for_weeks() -> None:
    taps = np.zeros((3, 3, 700, 700))
    axes = (Axis(1000, 3, 1, 1), Axis(1000, 3, 1, 1))
    for sizes in ((None, None), (None, 1001)):
        torus = Torus(sizes, (Fraction(0), Fraction(0)))
        assert not semi_torus.is_feasible(taps, axes, torus)
    # Few rows, but as many columns as a small file may ask for: 34 GB.
    flat = np.zeros((3, 3, 1, 4096))
    long = (Axis(64, 3, 1, 1), Axis(1024, 3, 1, 1))
    assert not semi_torus.is_feasible(flat, long, Torus((None, None), (Fraction(0), Fraction(0))))
    small = (Axis(16, 3, 1, 1), Axis(16, 3, 1, 1))
    own = np.zeros((3, 3, 588, 588))
    for sizes in ((None, None), (None, 17)):
        assert semi_torus.is_feasible(own, small, Torus(sizes, (Fraction(0), Fraction(0))))
