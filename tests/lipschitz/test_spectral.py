"""σ_max bounds of small, ill-natured matrices against 60-digit singular values."""

import numpy as np
import pytest

from pipeline.lipschitz.estimate import largest_ritz_values, start_vectors
from pipeline.lipschitz.rounding import scaled_to_one
from pipeline.lipschitz.spectral import (
    cholesky_upper,
    gram_form,
    gram_upper,
    residual_upper,
    shift,
    spectral_upper,
    upper_factor,
)
from tests.lipschitz.explicit import exact_norm


def unitary(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n)))[0]


def matrices(seed):
    """One complex matrix of every kind, m ≥ n."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    m = n + int(rng.integers(0, 3))
    noise = rng.standard_normal((m, n)) + 1j * rng.standard_normal((m, n))
    column = rng.standard_normal((m, 1)) + 1j * rng.standard_normal((m, 1))
    yield "random", noise
    yield "real", noise.real + 0j
    yield "rank one", column @ noise[:1]
    yield "unitary", unitary(rng, m)[:, :n]
    yield "identity", np.eye(m, n) + 0j
    yield "sign", np.sign(noise.real) + 0j
    yield "graded rows", noise * 10.0 ** -(np.arange(m) * 20.0)[:, None]
    yield "graded columns", noise * 10.0 ** -(np.arange(n) * 20.0)
    yield "near-equal columns", column + 1e-15 * noise
    yield "one entry", np.where(np.arange(m * n).reshape(m, n) == m * n - 1, 3.0 + 4j, 0)
    yield "hilbert", 1 / (1.0 + np.add.outer(np.arange(m), np.arange(n))) + 0j
    yield "near unitary", unitary(rng, m)[:, :n] * (1 + 1e-14 * rng.standard_normal(n))
    yield "small", noise * 2.0**-30
    yield "zero column", noise * (np.arange(n) > 0) if n > 1 else noise
    yield "imaginary", 1j * noise.real


def parts_of(matrix):
    return np.stack([matrix.real, matrix.imag])[None]


@pytest.mark.parametrize("seed", range(8))
def test_never_below_and_tight(seed):
    for kind, matrix in matrices(seed):
        parts, exponent = scaled_to_one(parts_of(matrix))
        truth = exact_norm(parts[0, 0] + 1j * parts[0, 1])
        for bound in (spectral_upper(parts), spectral_upper(parts, q=1e-3)):
            assert bound.value >= truth, kind
            assert bound.value <= truth * (1 + 3e-7), kind
            assert bound.method == "cholesky", kind
        gram = gram_upper(parts)[0]
        assert truth <= gram <= truth * (1 + 2e-5), kind
        assert exponent == np.frexp(np.abs(parts_of(matrix)).max())[1]


@pytest.mark.parametrize("exponent", [-1000, -560, -40, 200, 300, 400, 505, 511, 600, 1000])
def test_unscaled_matrices_are_not_below_either(exponent):
    """Squares underflow or overflow: the bound may be loose or infinite, never low."""
    for kind, matrix in matrices(3):
        parts = np.ldexp(parts_of(matrix), exponent)
        if not np.isfinite(parts).all():
            continue
        truth = exact_norm(parts[0, 0] + 1j * parts[0, 1])
        assert spectral_upper(parts).value >= truth, kind
        assert gram_upper(parts)[0] >= truth, kind


def test_q_below_sigma_squared_gives_infinity_or_a_bound():
    finite = 0
    for seed in range(4):
        for kind, matrix in matrices(seed):
            parts, _ = scaled_to_one(parts_of(matrix))
            form = gram_form(parts)
            truth = exact_norm(matrix) / 2 ** int(np.frexp(np.abs(parts_of(matrix)).max())[1])
            square = float(truth) ** 2
            for step in (-0.5, -1e-3, -1e-8, -1e-12, -1e-14, -1e-15, 0, 1e-15, 1e-12):
                bound = cholesky_upper(form, square * (1 + step))[0]
                finite += np.isfinite(bound)
                assert bound >= truth, (kind, step)
    assert finite > 100


def test_no_corrupted_factor_gives_a_low_bound():
    rng = np.random.default_rng(0)
    tried = 0
    for seed in range(4):
        for kind, matrix in matrices(seed):
            parts, _ = scaled_to_one(parts_of(matrix))
            truth = exact_norm(parts[0, 0] + 1j * parts[0, 1])
            form = gram_form(parts)
            for q in (float(truth) ** 2 * (1 + 1e-9), float(truth) ** 2 * 0.25):
                shifted = shift(form, q)
                factor = upper_factor(shifted)
                right = np.zeros_like(shifted) if factor is None else factor
                noise = rng.standard_normal(right.shape)
                wrong = (
                    right,
                    right * (1 + 1e-9 * noise),
                    right + 1e-3 * noise,
                    np.zeros_like(right),
                    1e200 * noise,
                    np.full_like(right, np.nan),
                    np.where(noise > 1, np.inf, right),
                    right[..., ::-1, :],
                    -right.mT,
                )
                for factor in wrong:
                    assert residual_upper(form, q, shifted, factor)[0] >= truth, kind
                    tried += 1
    assert tried == 4 * 15 * 2 * 9


def test_nan_and_inf_are_not_bounded():
    for bad in (np.nan, np.inf, -np.inf):
        parts = np.ones((1, 2, 3, 2))
        parts[0, 1, 2, 1] = bad
        assert spectral_upper(parts).value == np.inf
        assert gram_upper(parts)[0] == np.inf


def test_gram_iteration_steps_in_where_cholesky_fails(monkeypatch):
    monkeypatch.setattr("pipeline.lipschitz.spectral.upper_factor", lambda shifted: None)
    parts = np.random.default_rng(0).standard_normal((2, 2, 5, 4))
    bound = spectral_upper(parts)
    truth = max(exact_norm(p[0] + 1j * p[1]) for p in parts)
    assert bound.method == "gram"
    assert truth <= bound.value <= truth * (1 + 2e-5)


def test_all_singular_values_equal():
    """Hadamard: the worst multiplicity, σ = √n exactly."""
    matrix = np.ones((1, 1))
    for _ in range(7):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    bound = spectral_upper(matrix[None, None])
    assert np.sqrt(128) < bound.value < np.sqrt(128) * (1 + 3e-7)
    assert np.sqrt(128) < gram_upper(matrix[None, None])[0] < np.sqrt(128) * (1 + 1e-4)


def test_a_stack_is_bounded_by_its_largest():
    rng = np.random.default_rng(5)
    parts = rng.standard_normal((40, 2, 6, 4)) * rng.random((40, 1, 1, 1))
    norms = np.linalg.norm(parts[:, 0] + 1j * parts[:, 1], 2, axis=(1, 2))
    assert norms.max() < spectral_upper(parts).value < norms.max() * (1 + 3e-7)
    each = gram_upper(parts)
    assert (each > norms * (1 - 1e-14)).all()
    assert (each < norms * (1 + 2e-5)).all()


def test_lanczos_agrees_with_lapack():
    rng = np.random.default_rng(6)
    noise = rng.standard_normal((7, 60, 60)) + 1j * rng.standard_normal((7, 60, 60))
    hermitian = noise.conj().mT @ noise
    hermitian[3] = np.eye(60)  # invariant after one step
    hermitian[4] = 0
    start = start_vectors(7, 60, complex)
    values = largest_ritz_values(lambda v: (hermitian @ v[..., None])[..., 0], start, 60)
    truth = np.linalg.eigvalsh(hermitian)[:, -1]
    assert values == pytest.approx(truth, rel=1e-10, abs=1e-10)
