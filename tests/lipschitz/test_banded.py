"""Block-Toeplitz operators against their explicit matrices; factors that are wrong on purpose."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline.lipschitz import banded
from pipeline.lipschitz.banded import BlockToeplitz, banded_upper, largest_square
from pipeline.lipschitz.block_operations import Operations, operations
from pipeline.lipschitz.device import proofs_on
from tests.lipschitz.explicit import exact_norm


@pytest.fixture(scope="module", autouse=True, params=["numpy", "torch"])
def on(request: pytest.FixtureRequest) -> Iterator[Operations]:
    """Everything here by NumPy, and by the code for GPUs."""
    with proofs_on(torch.device("cpu") if request.param == "torch" else None):
        yield operations()


def draw(seed: int, exponent: int = 0) -> BlockToeplitz:
    rng = np.random.default_rng(seed)
    count, kinds = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    high, wide = (int(n) for n in rng.integers(1, 4, 2))
    blocks = np.ldexp(rng.standard_normal((count, kinds, high, wide)), exponent)
    before = int(rng.integers(0, count))
    return BlockToeplitz(blocks, before, *(int(n) for n in rng.integers(1, 7, 2)))


def explicit(operator: BlockToeplitz) -> np.ndarray:
    blocks = operator.blocks
    whole = blocks[:, 0] if blocks.shape[1] == 1 else blocks[:, 0] + 1j * blocks[:, 1]
    _, high, wide = whole.shape
    matrix = np.zeros((operator.rows, high, operator.columns, wide), complex)
    for i in range(operator.rows):
        for j in range(operator.columns):
            number = j - i + operator.before
            if 0 <= number < len(whole):
                matrix[i, :, j] = whole[number]
    return matrix.reshape(operator.rows * high, -1)


@pytest.mark.parametrize("seed", range(60))
def test_never_below_and_tight(seed: int) -> None:
    operator = draw(seed)
    truth = np.linalg.norm(explicit(operator), 2)
    if truth == 0:
        return
    for twin in (operator, operator.upright()):
        estimate = largest_square(twin, 200)
        assert estimate == pytest.approx(truth**2, rel=1e-6)
        bound = banded_upper(twin, estimate * (1 + 1e-6))
        assert truth * (1 - 1e-12) < bound < truth * (1 + 1e-6)


def test_the_adjoint_has_the_same_norm_and_fewer_columns() -> None:
    for seed in range(40):
        operator = draw(seed)
        twin = operator.upright()
        adjoint = twin is not operator
        reference = explicit(operator).conj().T if adjoint else explicit(operator)
        assert np.array_equal(explicit(twin), reference)
        assert twin.columns * twin.blocks.shape[3] <= twin.rows * twin.blocks.shape[2]


@pytest.mark.parametrize("seed", range(12))
def test_no_q_gives_a_bound_below_the_norm(seed: int) -> None:
    """Against 60 digits: not even where q lies below the square of the norm."""
    operator = draw(seed)
    if explicit(operator).size > 120 or not explicit(operator).any():
        return
    truth = exact_norm(explicit(operator))
    finite = 0
    for step in (-0.5, -1e-3, -1e-8, -1e-12, -1e-14, -1e-15, 0, 1e-15, 1e-13, 1e-9, 1.0):
        bound = banded_upper(operator, float(truth) ** 2 * (1 + step))
        finite += np.isfinite(bound)
        assert bound >= truth, step
    assert finite >= 2


def test_no_corrupted_factor_gives_a_low_bound(
    monkeypatch: pytest.MonkeyPatch, on: Operations
) -> None:
    rng = np.random.default_rng(0)
    factor, solve = on.factor, on.solve
    monkeypatch.setattr(banded, "operations", lambda: on)
    for seed in range(20):
        operator = draw(seed)
        truth = np.linalg.norm(explicit(operator), 2)
        for scale in (1e-9, 1e-3, 1.0, 1e200, np.nan):

            def spoiled(matrix, scale=scale):
                return matrix if matrix is None else matrix + scale * rng.standard_normal()

            monkeypatch.setattr(on, "factor", lambda m, f=spoiled: f(factor(m)))
            monkeypatch.setattr(on, "solve", lambda a, b, f=spoiled: f(solve(a, b)))
            for share in (0.25, 1 + 1e-9, 4.0):
                assert banded_upper(operator, truth**2 * share) >= truth * (1 - 1e-12)


def test_a_factor_that_ignores_the_matrix_gives_a_true_bound(
    monkeypatch: pytest.MonkeyPatch, on: Operations
) -> None:
    """R = 0 proves ‖T‖² ≤ q + ‖qI − TᴴT‖_F, whatever q is."""
    monkeypatch.setattr(banded, "operations", lambda: on)
    monkeypatch.setattr(on, "factor", lambda matrix: 0 * matrix)
    monkeypatch.setattr(on, "solve", lambda corner, right: 0 * right)
    for seed in range(20):
        operator = draw(seed)
        matrix = explicit(operator)
        for q in (0.0, 1.0, 100.0):
            gram = q * np.eye(matrix.shape[1]) - matrix.conj().T @ matrix
            expected = np.sqrt(q + np.linalg.norm(gram))
            assert banded_upper(operator, q) == pytest.approx(expected, rel=1e-9)


def test_nan_and_infinity_are_not_bounded() -> None:
    for bad in (np.nan, np.inf):
        blocks = np.ones((3, 2, 2, 2))
        blocks[1, 1, 0, 1] = bad
        assert banded_upper(BlockToeplitz(blocks, 1, 4, 4), 100.0) == np.inf


def test_small_and_large_scales() -> None:
    """Squares underflow or overflow: loose or infinite, never low."""
    for exponent in (-1000, -540, -300, 300, 505, 520):
        for seed in range(8):
            operator = draw(seed, exponent)
            unscaled = BlockToeplitz(
                np.ldexp(operator.blocks, -exponent),
                operator.before,
                operator.rows,
                operator.columns,
            )
            truth = np.ldexp(np.linalg.norm(explicit(unscaled), 2), exponent)
            assert banded_upper(operator, truth * truth * (1 + 1e-6)) >= truth * (1 - 1e-12)


def test_products_are_those_of_complex_matrices(on: Operations) -> None:
    rng = np.random.default_rng(1)
    for kinds in (1, 2):
        a, b = rng.standard_normal((kinds, 5, 3)), rng.standard_normal((kinds, 5, 4))
        whole = [part[0] + (1j * part[1] if kinds == 2 else 0) for part in (a, b)]
        product = np.asarray(on.product(on.place(a), on.place(b)))
        assert product.shape == (kinds, 3, 4)
        expected = whole[0].conj().T @ whole[1]
        assert np.allclose(product[0], expected.real, atol=1e-14)
        if kinds == 2:
            assert np.allclose(product[1], expected.imag, atol=1e-14)
