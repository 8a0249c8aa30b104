"""Outward rounding against exact rational arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.lipschitz.compose import product_upper
from pipeline.lipschitz.rounding import (
    add_up,
    down,
    frobenius_upper,
    gamma,
    mul_up,
    scaled_back,
    scaled_to_one,
    sqrt_upper,
    squares_upper,
    sum_upper,
    up,
)

NON_NEGATIVE = st.floats(0, 1e150)
ANY = st.floats(-1e150, 1e150)
EXAMPLES = settings(max_examples=100, deadline=None, derandomize=True)


def exact(x):
    return Fraction(float(x))


@pytest.mark.parametrize("n", [0, 1, 2, 9, 588, 10**6, 2**40])
def test_gamma_is_not_below_and_hardly_above(n):
    u = Fraction(1, 2**53)
    truth = n * u / (1 - n * u)
    assert truth <= exact(gamma(n)) <= truth * (1 + Fraction(1, 2**49))


@EXAMPLES
@given(st.lists(NON_NEGATIVE, min_size=1, max_size=40))
def test_sums_products_and_norms_are_not_below(values):
    array = np.array(values)
    total = sum(map(exact, values))
    squares = sum(exact(v) ** 2 for v in values)
    assert exact(sum_upper(array)) >= total
    assert exact(add_up(*values)) >= total
    assert exact(frobenius_upper(array)) ** 2 >= squares
    if max(values) < 1e100:
        assert exact(squares_upper(array[None])[0]) >= squares
    product = math.prod(map(exact, values[:3]))
    for rounded in (mul_up(*values[:3]), product_upper(values[:3])):
        assert math.isinf(rounded) or exact(rounded) >= product
    assert exact(sqrt_upper(values[0])) ** 2 >= exact(values[0])


@EXAMPLES
@given(st.lists(ANY, min_size=1, max_size=20), st.integers(-900, 400))
def test_frobenius_survives_any_scale(values, exponent):
    array = np.ldexp(np.array(values), exponent)
    if not np.isfinite(array).all():
        return
    truth = sum(exact(v) ** 2 for v in array)
    bound = frobenius_upper(array)
    assert math.isinf(bound) or exact(bound) ** 2 >= truth
    if truth and 1e-300 < bound < math.inf:
        assert exact(bound) ** 2 <= truth * (1 + Fraction(1, 2**40))


def test_neighbours():
    assert up(1.0) == 1 + 2.0**-52
    assert down(1.0) == 1 - 2.0**-53
    assert isinstance(up(1.0), float)
    assert not isinstance(up(1.0), np.floating)


def test_a_subnormal_result_is_rounded_up():
    """ldexp to a subnormal rounds to nearest, which may be down; the bound may not be."""
    for k in range(40):
        x = 1 + k * 2.0**-6
        assert exact(scaled_back(x, -1072)) >= exact(x) * Fraction(1, 2**1072)
    assert scaled_back(1.5, 1023) > 1.5 * 2.0**1023
    assert scaled_back(1.5, 1024) == math.inf


def test_scaling_is_exact_and_lands_below_one():
    values = np.array([3.0, -0.7e-90, 5e200])
    scaled, exponent = scaled_to_one(values)
    assert 0.5 <= np.abs(scaled).max() < 1
    assert [exact(s) * Fraction(2) ** exponent for s in scaled] == [exact(v) for v in values]


def test_nothing_certifies_by_overflow_or_nan():
    assert product_upper([1e200, 1e200]) == math.inf
    assert not product_upper([1.0, math.nan]) < math.inf
    assert product_upper([]) == 1.0
    assert frobenius_upper(np.zeros(3)) == 0.0
    assert sqrt_upper(0.0) == 0.0
