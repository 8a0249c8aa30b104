"""Row distances against exact rational arithmetic, above all of near-equal rows."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from pipeline.lipschitz.pairwise import pairwise_distance_upper


def exact_squares(rows):
    fractions = [[Fraction(float(x)) for x in row] for row in rows]
    return [
        [
            sum(((a - b) ** 2 for a, b in zip(one, two, strict=True)), Fraction())
            for two in fractions
        ]
        for one in fractions
    ]


def assert_upper_and_tight(rows, tightness=Fraction(1, 10**12)):
    distances = pairwise_distance_upper(rows)
    for bounds, squares in zip(distances, exact_squares(rows), strict=True):
        for bound, square in zip(bounds, squares, strict=True):
            assert Fraction(float(bound)) ** 2 >= square
            assert Fraction(float(bound)) ** 2 <= square * (1 + tightness)
            assert (bound == 0) == (square == 0)
    assert np.array_equal(distances, distances.T)
    assert not distances.diagonal().any()


@pytest.mark.parametrize("gap", [1e-17, 1e-16, 1e-15, 1e-12, 1e-8, 1e-3, 1.0])
def test_near_equal_rows(gap):
    rng = np.random.default_rng(0)
    centre = rng.standard_normal(40) / 40**0.5
    assert_upper_and_tight(centre + gap * rng.standard_normal((8, 40)))


@pytest.mark.parametrize("exponent", [-1000, -500, 0, 500, 1000])
def test_any_scale(exponent):
    rows = np.ldexp(np.random.default_rng(1).standard_normal((5, 7)), exponent)
    assert_upper_and_tight(rows)


def test_the_gram_form_would_fall_below():
    """Why the difference form: on these rows the usual formula certifies too much."""
    rng = np.random.default_rng(2)
    rows = rng.standard_normal(64) + 1e-9 * rng.standard_normal((20, 64))
    norms = (rows**2).sum(1)
    gram = np.sqrt(np.maximum(norms[:, None] + norms - 2 * rows @ rows.T, 0))
    truth = np.array([[float(x) ** 0.5 for x in row] for row in exact_squares(rows)])
    assert (gram < truth * (1 - 1e-9)).sum() > 50
    assert (pairwise_distance_upper(rows) >= truth).all()


def test_equal_rows_are_zero_apart_and_tiny_differences_are_not():
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 0.0], [1.0, 2.0**-1074]])
    distances = pairwise_distance_upper(rows)
    assert distances[0, 1] == 0.0
    assert distances[2, 3] > 0.0
    assert not pairwise_distance_upper(np.zeros((3, 2))).any()


def test_dtypes_and_non_finite_rows():
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(pairwise_distance_upper(rows), pairwise_distance_upper(rows.double()))
    rows[1, 2] = float("nan")
    distances = pairwise_distance_upper(rows)
    assert np.isinf(distances[~np.eye(4, dtype=bool)]).all()
    assert not distances.diagonal().any()


def test_tiles_and_threads_do_not_change_it(monkeypatch):
    rows = np.random.default_rng(3).standard_normal((30, 50))
    whole = pairwise_distance_upper(rows)
    monkeypatch.setattr("pipeline.lipschitz.pairwise.TILE_BYTES", 1000)
    assert np.array_equal(pairwise_distance_upper(rows), whole)
    assert (whole >= np.linalg.norm(rows[:, None] - rows, axis=2) * (1 - 1e-15)).all()
