"""Plain networks against autograd; CROWN's lines and bounds against what they enclose."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.lipschitz.crown import crown_radius, lines, margin_lower, seen
from pipeline.lipschitz.plain import BEND, SLOPE, VALUE, PlainNetwork, largest_curvature

SIZES = [5, 7, 6, 3]
SMOOTH = ("softplus", "sigmoid", "tanh")


def network_of(function: str, hidden: int, scale: float = 1.5) -> PlainNetwork:
    generator = torch.Generator().manual_seed(hidden)

    def draw(*shape: int) -> torch.Tensor:
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    sizes = [SIZES[0], *SIZES[1 : hidden + 1]]
    return PlainNetwork(
        [draw(o, i) / i**0.5 for i, o in itertools.pairwise(sizes)],
        [draw(o) / 3 for o in sizes[1:]],
        [function] * hidden,
        draw(SIZES[-1], sizes[-1]),
        draw(SIZES[-1]) / 3,
    )


def points(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.rand(count, SIZES[0], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("function", SMOOTH)
@pytest.mark.parametrize("hidden", [1, 2])
def test_margins_gradients_and_hessians_are_autograds(function: str, hidden: int) -> None:
    network, x = network_of(function, hidden), points(3)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    value, gradient = network.margin(first, second)(x)
    steep = largest_curvature(network, x, first, second, steps=400)
    for row in range(3):

        def margin(point, row=row):
            logits = network.logits(point[None])[0]
            return logits[first[row]] - logits[second[row]]

        assert float(value[row]) == pytest.approx(float(margin(x[row])))
        slope = torch.autograd.functional.jacobian(margin, x[row])
        assert torch.allclose(gradient[row], slope)
        hessian = torch.autograd.functional.hessian(margin, x[row])
        v = torch.randn(3, SIZES[0], dtype=torch.float64)
        assert torch.allclose(network.hessian(x, first, second)(v)[row], hessian @ v[row])
        largest = torch.linalg.eigvalsh(hessian).abs().max()
        assert largest * 0.98 <= steep[row] <= largest * (1 + 1e-9)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.sampled_from([*SMOOTH, "relu"]),
    st.floats(-8, 8),
    st.one_of(st.just(0.0), st.floats(1e-6, 16)),
)
def test_lines_enclose_the_function(function: str, least: float, width: float) -> None:
    low, high = torch.tensor([[least], [least + width]], dtype=torch.float64)
    found = lines(function, low, high)
    z = torch.linspace(least, least + width, 400, dtype=torch.float64)
    value = VALUE[function](z)
    assert (found.low_slope * z + found.low <= value + 1e-9).all()
    assert (found.high_slope * z + found.high >= value - 1e-9).all()


@pytest.mark.parametrize("function", [*SMOOTH, "relu"])
@pytest.mark.parametrize("hidden", [1, 2])
def test_bounds_hold_in_the_ball_and_are_exact_without_one(function: str, hidden: int) -> None:
    network, x0 = network_of(function, hidden), points(4)
    first, second = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 2])
    exact = network.margin(first, second)(x0)[0]
    nothing = margin_lower(network, x0, torch.zeros(4).double(), first, second)
    assert torch.allclose(nothing, exact, atol=1e-6)
    radius = torch.tensor([0.05, 0.2, 0.5, 1.0]).double()
    bound = margin_lower(network, x0, radius, first, second)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        step = torch.randn(4, SIZES[0], generator=generator, dtype=torch.float64)
        step = radius[:, None] * step / step.norm(dim=1, keepdim=True)
        assert (network.margin(first, second)(x0 + step)[0] >= bound - 1e-9).all()
    assert (bound <= exact).all()


def test_radii_are_where_the_bound_is_zero() -> None:
    network, x0 = network_of("sigmoid", 1), points(6)
    first = network.logits(x0).argmax(1)
    second = (first + 1) % SIZES[-1]
    radius = crown_radius(network, x0, first, second)
    assert (radius > 0).all() and (radius < 8).all()
    assert (margin_lower(network, x0, radius, first, second) > 0).all()
    assert (margin_lower(network, x0, radius + 1e-3, first, second) <= 0).all()
    assert (crown_radius(network, x0, second, first) == 0).all()


@pytest.mark.parametrize("inputs", [4, 7, 30])
def test_directions_that_are_not_seen_change_no_bound(inputs: int) -> None:
    generator = torch.Generator().manual_seed(inputs)
    wide = network_of("tanh", 2)
    first_layer = torch.randn(7, inputs, generator=generator, dtype=torch.float64)
    wide = replace(wide, weights=[first_layer, *wide.weights[1:]])
    x0 = torch.rand(5, inputs, generator=generator, dtype=torch.float64)
    narrow, shorter = seen(wide, x0)
    assert shorter.shape[1] == min(inputs, 7)
    first, second = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0, 2, 0])
    radius = torch.tensor([0.0, 0.05, 0.2, 0.5, 1.0]).double()
    expected = margin_lower(wide, x0, radius, first, second)
    assert torch.allclose(margin_lower(narrow, shorter, radius, first, second), expected)


@pytest.mark.parametrize("function", SMOOTH)
def test_slopes_and_bends_are_derivatives(function: str) -> None:
    z = torch.linspace(-4, 4, 31, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(VALUE[function](z).sum(), z, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), z)
    assert torch.allclose(SLOPE[function](z), slope) and torch.allclose(BEND[function](z), bend)
