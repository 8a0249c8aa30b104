"""Frozen steps, the constant at every mask, Remark 2, and rounding against exact fractions."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.layers.convex_potential import (
    ExportedConvexPotential,
    freeze,
    longest_step,
    potential_lipschitz,
)
from pipeline.layers.householder import Householder
from pipeline.layers.sll import SllDense


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.floats(1e-18, 1e18))
def test_the_longest_step_is_not_too_long_and_no_shorter_than_it_must(norm: float) -> None:
    step = longest_step(norm)
    assert Fraction(float(step)) * Fraction(norm) ** 2 <= 2
    longer = np.nextafter(step, np.float32(math.inf))
    assert Fraction(float(longer)) * Fraction(norm) ** 2 > 2 * (1 - Fraction(1, 10**14))
    assert potential_lipschitz(float(step), norm) <= 1 + 1e-15


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_constant_is_rounded_up(step: float, norm: float) -> None:
    exact = max(Fraction(1), Fraction(step) * Fraction(norm) ** 2 - 1)
    found = Fraction(potential_lipschitz(step, norm))
    assert exact <= found <= exact * (1 + Fraction(1, 10**12))


def test_what_is_not_finite_has_no_constant() -> None:
    assert potential_lipschitz(1.0, math.inf) == math.inf
    assert potential_lipschitz(0.0, math.nan) == math.inf
    assert (longest_step(0.0), longest_step(math.inf)) == (1, 0)


@pytest.mark.parametrize("seed", range(4))
def test_every_mask_is_covered(seed: int) -> None:
    """I − h·WᵀDW for all 2ⁿ masks, at the frozen step and at steps that are too long."""
    rng = np.random.default_rng(seed)
    layer = freeze("x", (5,), rng.standard_normal((4, 5)), rng.standard_normal(4))
    for factor in (1.0, 1.5, 3.0):
        longer = replace(layer, step=np.float32(factor) * layer.step)
        bound = longer.norm_bound().value
        weight, step = longer.weight.astype(np.float64), float(longer.step[0])
        norms = [
            np.linalg.norm(np.eye(5) - step * weight.T @ np.diag(mask) @ weight, 2)
            for mask in np.ndindex(2, 2, 2, 2)
        ]
        assert max(norms) <= bound * (1 + 1e-12)
        assert bound <= max(norms) * (1 + 1e-5), "the full mask attains it"
    assert layer.norm_bound().value == 1.0


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e20])
def test_weights_of_any_size_have_a_step_in_range(scale: float) -> None:
    """The power of two that goes from W into h and b leaves the function as it was."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 4)), rng.standard_normal(3)
    layer = freeze("x", (4,), scale * weight, scale * bias)
    x = torch.from_numpy(rng.standard_normal((6, 4)))
    expected = freeze("x", (4,), weight, bias).forward(x)
    assert 0.5 < layer.step[0] < 100 and np.isfinite(layer.weight).all()
    torch.testing.assert_close(layer.forward(x), expected, rtol=1e-5, atol=1e-5)


def test_a_weight_of_zero_is_the_identity() -> None:
    layer = freeze("x", (4,), np.zeros((3, 4)), np.ones(3))
    x = torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(layer.forward(x), x) and layer.norm_bound().value == 1.0


def test_remark_2_householder_is_a_convex_potential() -> None:
    """W of one row, b = 0, relu: x − 2w·relu(wᵀx)/‖w‖² is the Householder activation."""
    rng = np.random.default_rng(3)
    for size in (2, 5):
        w = rng.standard_normal(size)
        layer = freeze("x", (size,), w[None], np.zeros(1))
        unit = w / np.linalg.norm(w)
        reflection = np.eye(size) - 2 * np.outer(unit, unit)
        for x in rng.standard_normal((20, size)):
            expected = x if w @ x <= 0 else reflection @ x
            found = layer.forward(torch.from_numpy(x)[None])[0].numpy()
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_householder_activation_reflects_or_leaves() -> None:
    layer = Householder(6)
    with torch.no_grad():
        layer.angle.copy_(torch.tensor([0.3, 1.0, 2.5]))
    x = torch.randn(40, 6, dtype=torch.float64)
    y = layer.double()(x)
    assert torch.allclose(y.norm(dim=1), x.norm(dim=1))
    for number, angle in enumerate(layer.angle.tolist()):
        v = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        before, after = x[:, [number, number + 3]], y[:, [number, number + 3]]
        along = before @ v
        expected = torch.where(along[:, None] > 0, before - 2 * along[:, None] * v, before)
        torch.testing.assert_close(after, expected)


def test_sll_is_exported_with_its_own_step_where_that_is_short_enough() -> None:
    torch.manual_seed(0)
    layer = SllDense(6, 4)
    (twin,) = layer.export("x", (6,))
    assert isinstance(twin, ExportedConvexPotential)
    weight = twin.weight.astype(np.float64)
    assert float(twin.step[0]) * np.linalg.norm(weight, 2) ** 2 <= 2
    x = torch.randn(5, 6)
    torch.testing.assert_close(twin.forward(x.double()).float(), layer(x), rtol=1e-5, atol=1e-5)


def exact(array: np.ndarray) -> np.ndarray:
    return np.array([Fraction(float(x)) for x in array.ravel()], object).reshape(array.shape)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e8])
def test_rounding_covers_the_computation_exactly(scale: float) -> None:
    rng = np.random.default_rng(1)
    layer = freeze("x", (7,), rng.standard_normal((9, 7)), scale * rng.standard_normal(9))
    rounding = layer.rounding()
    gamma = Fraction(rounding.fan_in + 1, 2**53 - rounding.fan_in - 1)
    weight, bias, step = exact(layer.weight), exact(layer.bias), Fraction(float(layer.step[0]))
    for x in scale * rng.standard_normal((10, 7)):
        hidden = weight.dot(exact(x)) + bias
        truth = exact(x) - step * weight.T.dot(np.maximum(hidden, Fraction(0)))
        found = exact(layer.forward(torch.from_numpy(x)[None])[0].numpy())
        gap = sum((found - truth) ** 2)
        length = Fraction(math.sqrt(sum(exact(x) ** 2)) * (1 - 1e-15))
        allowed = gamma * (Fraction(rounding.abs_norm) * length + Fraction(rounding.bias_norm))
        assert gap <= allowed**2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weight": np.ones((2, 3, 2, 2), np.float32)}, "does not take inputs"),
        ({"bias": np.ones(3, np.float32)}, r"x\.bias"),
        ({"step": np.ones(2, np.float32)}, r"x\.step"),
        ({"step": np.array([-1], np.float32)}, "the step is -1.0"),
        ({"step": np.array([np.nan], np.float32)}, "the step is nan"),
        ({"input_shape": (5,)}, "input of x"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, sentence: str) -> None:
    layer = freeze("x", (4,), np.ones((2, 4)), np.ones(2))
    with pytest.raises(ValueError, match=sentence):
        replace(layer, **change)


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="square one of odd side"):
        freeze("x", (3, 6, 6), np.ones((2, 3, 2, 2)), np.ones(2))
