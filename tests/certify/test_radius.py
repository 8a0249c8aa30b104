"""Radii against exact fractions, at the places where rounding decides."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.certify.radius import exceeds, float_below, signed_radius
from pipeline.types import Epsilon

POSITIVE = st.floats(min_value=1e-100, max_value=1e100)


def one(margin: float, delta: float, lipschitz: float) -> float:
    return float(signed_radius(*(np.array([v]) for v in (margin, delta, lipschitz)))[0])


@settings(deadline=None, max_examples=400, derandomize=True)
@given(POSITIVE, st.floats(min_value=1e-100, max_value=1e100), POSITIVE)
def test_a_radius_is_never_above_the_quotient(margin: float, delta: float, k: float) -> None:
    radius = one(margin, delta, k)
    truth = (Fraction(margin) - Fraction(delta)) / Fraction(k)
    assert Fraction(radius) <= truth
    # and loses two roundings of each operation at the most
    ulps = math.ulp(max(margin, delta))
    assert truth - Fraction(radius) <= Fraction(2.0**-51) * abs(truth) + 2 * Fraction(
        ulps
    ) / Fraction(k)


def test_plain_rounding_would_exceed_the_quotient() -> None:
    rng = np.random.default_rng(0)
    margin, k = rng.uniform(0.1, 10, 2000), rng.uniform(0.1, 10, 2000)
    delta = margin * (1 - rng.integers(1, 5, 2000) * 2.0**-50)
    radius = signed_radius(margin, delta, k)
    plain = (margin - delta) / k
    too_large = 0
    for row in range(2000):
        truth = (Fraction(margin[row]) - Fraction(delta[row])) / Fraction(k[row])
        assert Fraction(radius[row]) <= truth
        too_large += Fraction(plain[row]) > truth
    assert too_large > 200


def test_both_roundings_are_downward() -> None:
    """With generic numbers both operations are inexact, and both may round the wrong way."""
    rng = np.random.default_rng(1)
    margin, k, delta = rng.uniform(1, 2, 20_000), rng.uniform(1, 2, 20_000), rng.random(20_000)
    radius = signed_radius(margin, delta, k)
    for m, d, constant, r in zip(*(a.tolist() for a in (margin, delta, k, radius)), strict=True):
        assert Fraction(r) * Fraction(constant) <= Fraction(m) - Fraction(d)


def test_a_constant_margin_decides_alone() -> None:
    assert one(1.0, 0.5, 0.0) == math.inf
    assert one(0.5, 0.5, 0.0) == -math.inf
    assert one(-1.0, 0.5, 0.0) == -math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_radius(bad: float) -> None:
    assert math.isnan(one(bad, 0.1, 1.0))
    assert math.isnan(one(1.0, bad, 1.0))
    assert math.isnan(one(1.0, 0.1, bad))
    assert not exceeds(np.array([math.nan]), Epsilon.parse("1/255"))[0]


def test_an_overflowing_radius_is_not_one() -> None:
    largest = np.finfo(np.float64).max
    assert one(largest, 0.0, 5e-324) <= largest


def test_epsilon_is_compared_as_a_fraction() -> None:
    below = 0
    for k in range(1, 1021):
        epsilon = Epsilon.parse(f"{k}/255")
        nearest = float(epsilon)
        radii = np.array(
            [math.nextafter(nearest, -math.inf), nearest, math.nextafter(nearest, math.inf)]
        )
        truth = [Fraction(radius) > Fraction(k, 255) for radius in radii]
        assert exceeds(radii, epsilon).tolist() == truth
        assert Fraction(float_below(epsilon.exact)) <= epsilon.exact
        below += Fraction(nearest) < Fraction(k, 255)
    assert below > 300
    for text in ("36/255", "72/255", "108/255"):  # the usual comparison is a trap for all three
        assert Fraction(float(Epsilon.parse(text))) < Epsilon.parse(text).exact


def test_the_comparison_is_strict() -> None:
    assert not exceeds(np.array([0.25]), Epsilon.parse("0.25"))[0]
    assert exceeds(np.array([math.nextafter(0.25, 1)]), Epsilon.parse(0.25))[0]
    assert exceeds(np.array([math.inf]), Epsilon.parse("36/255"))[0]
