"""Activations with a proved error, certification's and the verifier's, against 60 digits."""

import mpmath
import numpy as np
import pytest
import torch

from pipeline.layers import elementary as ours
from pipeline.layers.activation import ExportedActivation
from pipeline.lipschitz.slopes import LEAK, SLOPES
from pipeline.verify import elementary as theirs

UNIT = 2.0**-53
TRUTH = {
    "relu": (lambda x: max(x, mpmath.mpf(0)), None),
    "leaky_relu": (lambda x: x if x > 0 else mpmath.mpf(LEAK) * x, None),
    "softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), lambda x: 1 / (1 + mpmath.exp(-x))),
    "sigmoid": (
        lambda x: 1 / (1 + mpmath.exp(-x)),
        lambda x: 1 / (2 + mpmath.exp(x) + mpmath.exp(-x)),
    ),
    "tanh": (mpmath.tanh, lambda x: mpmath.sech(x) ** 2),
}


def points() -> np.ndarray:
    """Every scale, both signs, the joints of the range reduction, and the far ends."""
    random = np.random.default_rng(0)
    joints = np.arange(1, 120) * np.log(2) / 128
    some = np.concatenate(
        [
            random.standard_normal(300) * 10.0 ** random.uniform(-12, 2.8, 300),
            joints,
            np.nextafter(joints, 0),
            [0.0, 5e-324, 1e-300, 699.9, 700.0, 705.0, 1e4, 1e300],
        ]
    )
    return np.concatenate([some, -some])


@pytest.mark.parametrize("function", SLOPES)
def test_values_and_slopes_are_within_the_error(function: str) -> None:
    x = points()
    value, slope = TRUTH[function]
    computed = [ours.activate(function, torch.from_numpy(x)).numpy(), theirs.activate(function, x)]
    with mpmath.workdps(60):
        truth = [value(mpmath.mpf(float(v))) for v in x]
        for found in computed:
            check(found, truth, ours.ERROR_UNITS)
        if slope is not None:
            truth = [slope(mpmath.mpf(float(v))) for v in x]
            check(
                ours.differentiate(function, torch.from_numpy(x)).numpy(), truth, ours.ERROR_UNITS
            )
            check(theirs.differentiate(function, x), truth, theirs.ERROR_UNITS)


def check(found: np.ndarray, truth: list, units: int) -> None:
    worst = max(
        abs(mpmath.mpf(float(f)) - t) / (UNIT * max(1, abs(t)))
        for f, t in zip(found, truth, strict=True)
    )
    assert worst < units / 4, f"off by {float(worst):.1f} units"  # the proof has room to spare


def test_both_programs_assume_the_same_error_and_slopes() -> None:
    assert ours.ERROR_UNITS == theirs.ERROR_UNITS
    for function, slopes in SLOPES.items():
        least, most = theirs.SLOPES[function]
        assert (slopes.least, slopes.most) == (least, most)
        if slopes.curvature is not None:
            for our_bend, their_bend in zip(slopes.curvature, theirs.BENDS[function], strict=True):
                assert our_bend == pytest.approx(float(their_bend), rel=1e-6)


@pytest.mark.parametrize("function", ["softplus", "sigmoid", "tanh"])
def test_bends_bound_the_second_derivative(function: str) -> None:
    low, high = SLOPES[function].curvature
    with mpmath.workdps(40):
        value = TRUTH[function][0]
        bends = [mpmath.diff(value, mpmath.mpf(x) / 50, 2) for x in range(-200, 201)]
        assert mpmath.mpf(low) <= min(bends) and max(bends) <= mpmath.mpf(high)
        assert max(bends) > 0.999 * mpmath.mpf(high)  # and no more than that
        root = mpmath.sqrt(3)
        exact = {"softplus": mpmath.mpf(1) / 4, "sigmoid": root / 18, "tanh": 4 * root / 9}
        assert mpmath.mpf(high) >= exact[function]
        assert mpmath.mpf(float(theirs.BENDS[function][1])) >= exact[function] * (1 - 1e-15)


def test_nan_stays_nan() -> None:
    for function in SLOPES:
        nan = torch.tensor([float("nan")], dtype=torch.float64)
        assert ours.activate(function, nan).isnan().all()
        assert np.isnan(theirs.activate(function, nan.numpy())).all()


def test_an_unknown_activation_is_refused_with_the_near_miss() -> None:
    with pytest.raises(ValueError, match="did you mean 'softplus'"):
        ExportedActivation("act", (3,), "softplu")
