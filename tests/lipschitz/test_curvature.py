"""Curvature bounds against Hessians by automatic differentiation; searches against each other."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.layers.activation import IN_TRAINING
from pipeline.lipschitz.concavity_estimate import concavity_table
from pipeline.lipschitz.curvature_bound import (
    curvature_bounds,
    deep_bound,
    pair_terms,
    scaled_norm_bound,
    total_curvature,
)
from pipeline.lipschitz.curvature_estimate import curvature_table
from pipeline.lipschitz.curvature_search import CAP, best_multiplier, nearest_point, worst_point
from pipeline.lipschitz.slopes import SLOPES
from tests.lipschitz.printed_algorithms import algorithm_1, algorithm_2

CLASSES, PIXELS = 3, 5


class Plain:
    """A small fully connected network in float64, evaluated by torch."""

    def __init__(self, hidden: tuple[int, ...], function: str, seed: int, scale: float = 1.0):
        random = np.random.default_rng(seed)
        sizes = (PIXELS, *hidden)
        self.weights = [
            (scale * random.standard_normal((n, m)) / np.sqrt(m)).astype(np.float32)
            for m, n in itertools.pairwise(sizes)
        ]
        self.rows = random.standard_normal((CLASSES, hidden[-1])).astype(np.float32)
        self.function = function

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = IN_TRAINING[self.function](x @ torch.from_numpy(weight).to(x).T + 0.1)
        return x @ torch.from_numpy(self.rows).to(x).T

    def margin(self, first: int, second: int):
        def evaluate(x: torch.Tensor):
            x = x.detach().requires_grad_()
            logits = self.logits(x)
            value = logits[:, first] - logits[:, second]
            return value.detach(), torch.autograd.grad(value.sum(), x)[0]

        return evaluate

    def curvatures(self) -> np.ndarray:
        wide = [each.astype(np.float64) for each in self.weights]
        norms = [float(np.linalg.norm(each, 2)) * (1 + 1e-9) for each in wide]
        slopes = [SLOPES[self.function]] * len(wide)
        return curvature_bounds(wide, norms, slopes, self.rows.astype(np.float64)).table

    def printed(self, first: int, second: int) -> float:
        """Theorem 4."""
        wide = [each.astype(np.float64) for each in self.weights]
        norms = [float(np.linalg.norm(each, 2)) * (1 + 1e-9) for each in wide]
        difference = self.rows[first].astype(np.float64) - self.rows[second]
        return deep_bound(wide, norms, [SLOPES[self.function]] * len(wide), difference)


@pytest.mark.parametrize(
    ("hidden", "function"),
    [
        ((6,), "softplus"), ((6,), "sigmoid"), ((6, 4), "tanh"), ((6, 4), "softplus"),
        ((5, 4, 3), "softplus"), ((5, 4, 3), "sigmoid"), ((4, 4, 3, 3), "tanh"),
    ],
)  # fmt: skip
def test_no_hessian_is_more_concave_than_the_bound(hidden: tuple[int, ...], function: str) -> None:
    net = Plain(hidden, function, seed=len(hidden))
    table = net.curvatures()
    points = torch.from_numpy(np.random.default_rng(0).standard_normal((4, PIXELS)))
    assert (np.diag(table) == 0).all() and (table[~np.eye(CLASSES, dtype=bool)] > 0).all()
    for j, i in [(0, 1), (1, 0), (2, 1)]:
        for x in points:
            hessian = torch.autograd.functional.hessian(
                lambda v, j=j, i=i: net.logits(v[None])[0, j] - net.logits(v[None])[0, i], x
            )
            assert -float(torch.linalg.eigvalsh(hessian)[0]) <= table[j, i]


@pytest.mark.parametrize("function", ["softplus", "sigmoid"])
@pytest.mark.parametrize("hidden", [(6,), (6, 4), (5, 4, 3)])
def test_the_estimate_of_concavity_comes_near_the_bound(
    hidden: tuple[int, ...], function: str
) -> None:
    net = Plain(hidden, function, seed=3)
    weights = [torch.from_numpy(each) for each in net.weights]
    norms = [torch.linalg.matrix_norm(each, 2) for each in weights]
    pairs = CLASSES * (CLASSES - 1)
    vectors = [torch.ones(pairs, weight.shape[1]) / 2 for weight in weights]
    slopes = [SLOPES[function]] * len(weights)
    rows = torch.from_numpy(net.rows)
    for _ in range(3000):
        found, vectors = concavity_table(weights, rows, norms, slopes, vectors, advance=True)
    again, same = concavity_table(weights, rows, norms, slopes, vectors, advance=False)
    assert torch.allclose(again, found) and all(map(torch.equal, same, vectors))
    bound = torch.from_numpy(net.curvatures()).float()
    assert (found <= bound * (1 + 1e-5)).all() and (found >= bound * (1 - 1e-2)).all()
    assert (found.diag() == 0).all()


def test_two_layers_are_theorem_3() -> None:
    """−λ_min of N, equation 59, by LAPACK."""
    net = Plain((7,), "softplus", seed=4)
    weight, rows = net.weights[0].astype(np.float64), net.rows.astype(np.float64)
    table = net.curvatures()
    for j, i in [(0, 1), (1, 0), (2, 1)]:
        concave = 0.25 * np.maximum(rows[i] - rows[j], 0)
        exact = np.linalg.eigvalsh(weight.T @ (concave[:, None] * weight))[-1]
        assert exact <= table[j, i] <= exact * (1 + 1e-5)
    assert table[0, 1] != table[1, 0]  # softplus is convex: the signs of the rows tell


def test_the_training_estimate_is_theorem_4() -> None:
    net = Plain((6, 4), "tanh", seed=5)
    weights = [torch.from_numpy(each).double() for each in net.weights]
    norms = [torch.linalg.matrix_norm(each, 2) for each in weights]
    slopes = [SLOPES["tanh"]] * 2
    table = curvature_table(weights, torch.from_numpy(net.rows).double(), norms, slopes).numpy()
    h = SLOPES["tanh"].bend
    for j, i in [(0, 1), (2, 0)]:
        difference = np.abs(net.rows[j].astype(np.float64) - net.rows[i])
        deep = norms[0].item() ** 2 * (difference @ np.abs(weights[1].numpy())).max()
        shallow = (norms[1].item() * norms[0].item()) ** 2 * difference.max()
        assert table[j, i] == pytest.approx(h * (deep + shallow), rel=1e-6)
        assert table[j, i] <= net.printed(j, i) <= table[j, i] * (1 + 1e-6)


@pytest.mark.parametrize("function", ["softplus", "tanh"])
@pytest.mark.parametrize("hidden", [(6, 4), (5, 4, 3)])
def test_deep_networks_are_bounded_below_theorem_4(hidden: tuple[int, ...], function: str) -> None:
    net = Plain(hidden, function, seed=9)
    table = net.curvatures()
    pairs = [(j, i) for j in range(CLASSES) for i in range(CLASSES) if i != j]
    assert all(table[pair] < 0.9 * net.printed(*pair) for pair in pairs)
    assert (np.abs(table - table.T).max() > 1e-3) == (function == "softplus")


@pytest.mark.parametrize("function", ["softplus", "sigmoid"])
def test_terms_are_those_of_the_worst_gradient(function: str) -> None:
    """Three layers: every a^(1) that slopes in [0, g] allow, at its corners, by enumeration."""
    net = Plain((5, 4), function, seed=11)
    weights = [each.astype(np.float64) for each in net.weights]
    slopes = SLOPES[function]
    low, high = slopes.curvature
    w = net.rows[0].astype(np.float64) - net.rows[1]
    corners = np.array(list(itertools.product([0.0, slopes.most], repeat=4)))
    gradients = (corners * w) @ weights[1]
    squares = np.maximum(high * (-gradients).max(0), -low * gradients.max(0)).clip(min=0)
    last = np.maximum(-high * w, -low * w).clip(min=0)
    expected = [
        np.linalg.norm(np.sqrt(each)[:, None] * weight, 2) ** 2
        for each, weight in zip((squares, last), weights, strict=True)
    ]
    found = pair_terms(weights, [slopes] * 2, w)
    for term, least in zip(found, expected, strict=True):
        assert least <= term <= least * (1 + 1e-5)


def test_terms_are_added_up_with_what_lies_before_them() -> None:
    slopes = [SLOPES["sigmoid"], SLOPES["tanh"], SLOPES["softplus"]]
    found = total_curvature([3.0, 5.0, 7.0], [2.0, 6.0, 100.0], slopes)
    exact = 3 + 5 * (0.25 * 2) ** 2 + 7 * (0.25 * 2 * 6) ** 2
    assert exact <= found <= exact * (1 + 1e-8)
    assert total_curvature([3.0], [2.0], slopes[:1]) == 3.0


def test_what_overflowed_is_no_bound() -> None:
    assert scaled_norm_bound(np.ones((2, 3)), np.array([1.0, np.nan])) == math.inf


def ahead(net: Plain, count: int = 12) -> tuple[torch.Tensor, int, int]:
    """Points where class `first` is ahead of `second`, and the two classes."""
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((100, PIXELS)))
    pairs = [(j, i) for j in range(CLASSES) for i in range(CLASSES) if i != j]
    first, second = max(pairs, key=lambda pair: int((net.margin(*pair)(x)[0] > 0).sum()))
    return x[net.margin(first, second)(x)[0] > 0][:count], first, second


@pytest.mark.parametrize("function", ["softplus", "sigmoid"])
def test_the_projection_finds_what_algorithm_1_finds(function: str) -> None:
    net = Plain((6,), function, seed=7)
    table = torch.from_numpy(net.curvatures())
    x0, j, i = ahead(net)
    margin = net.margin(j, i)
    concave, convex = table[j, i].expand(len(x0)), table[i, j].expand(len(x0))
    values = []
    for x, eta in (
        algorithm_1(margin, x0, concave, convex),
        nearest_point(margin, x0, concave, convex, steps=60)[:2],
    ):
        assert (eta <= 1 / concave + 1e-9).all()
        values.append(((x - x0) ** 2).sum(1) / 2 + eta * margin(x)[0])
    # Where the dual is not tight the last per mille of η is left out.
    assert torch.allclose(values[0], values[1], rtol=1e-2, atol=1e-4)
    assert (values[0] > 0).all()


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.integers(0, 10**6),
    st.floats(-0.5, 3),
    st.one_of(st.just(0.0), st.floats(1e-12, 30)),
    st.floats(0, 3),
)
def test_no_other_multiplier_proves_more(
    seed: int, value: float, concave: float, distance: float
) -> None:
    """Against a grid of η, down to a curvature of zero."""
    random = torch.Generator().manual_seed(seed)
    slope, away = torch.randn(2, 1, PIXELS, generator=random, dtype=torch.float64)
    away, f, c = distance * away, torch.tensor([value]).double(), torch.tensor([concave]).double()
    eta, dual = best_multiplier(f, slope, away, c)
    cap = CAP / concave if concave else 1e3
    assert 0 <= float(eta) <= cap * (1 + 1e-12)
    for other in [0.0, *np.geomspace(1e-6, 1, 200) * cap]:
        residual = away + other * slope
        bound = (away**2).sum() / 2 + other * f
        bound = bound - (residual**2).sum() / (2 * (1 - other * c))
        assert float(dual) >= float(bound) - 1e-9 * (1 + abs(float(bound)))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(0, 10**6), st.floats(0.2, 5), st.floats(0.1, 2), st.floats(0.05, 20))
def test_a_search_that_has_not_arrived_proves_most_of_the_dual_already(
    seed: int, concave: float, ratio: float, value: float
) -> None:
    """Of quadratic margins, whose dual is max over η of an explicit formula.

    Up to which a step to and fro leaves nine tenths of the residual, and proved nothing at all.
    """
    random = torch.Generator().manual_seed(seed)
    bends = torch.rand(1, 12, generator=random, dtype=torch.float64)
    bends = concave * ((1 + ratio) * bends - 1)
    bends[0, :2] = torch.tensor([-concave, ratio * concave])
    linear = torch.randn(1, 12, generator=random, dtype=torch.float64)

    def margin(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return value + (linear * x + bends * x * x / 2).sum(1), linear + bends * x

    near = torch.logspace(-6, 0, 4001, dtype=torch.float64)
    etas = (torch.cat([near, 1 - near]) * CAP / concave)[:, None]
    values = etas[:, 0] * value - (etas**2 * linear**2 / (2 * (1 + etas * bends))).sum(1)
    best = float(values.max())
    x0 = torch.zeros(1, 12, dtype=torch.float64)
    sides = torch.tensor([concave]).double(), torch.tensor([ratio * concave]).double()
    shares = [float(nearest_point(margin, x0, *sides, steps)[2]) / best for steps in (1, 4, 16, 60)]
    assert shares == sorted(shares)
    assert shares[0] > 0 and shares[1] > 0.6 and shares[2] > 0.9
    assert 0.99 < shares[3] < 1 + 1e-5, "but for the grid of η"


def test_the_worst_point_is_that_of_algorithm_2() -> None:
    net, radius = Plain((6,), "softplus", seed=8, scale=0.5), 0.2
    table = torch.from_numpy(net.curvatures())
    x0, j, i = ahead(net)
    margin = net.margin(j, i)
    concave = table[j, i].expand(len(x0))
    steepest = torch.maximum(table[j, i], table[i, j]).expand(len(x0))
    slow, eta = algorithm_2(margin, x0, concave, steepest, radius)
    fast = worst_point(margin, x0, radius, concave, steps=50)
    reached = ((slow - x0).norm(dim=1) - radius).abs() < 1e-3
    assert reached.sum() > len(x0) / 2 and (eta[reached] >= concave[reached]).all()
    assert torch.allclose(margin(slow)[0][reached], margin(fast)[0][reached], atol=1e-3)
    random = torch.from_numpy(np.random.default_rng(2).standard_normal((400, 1, PIXELS)))
    others = x0 + radius * random / random.norm(dim=2, keepdim=True)
    lowest = margin(others.reshape(-1, PIXELS))[0].reshape(400, -1).amin(0)
    assert (margin(fast)[0][reached] <= lowest[reached] + 1e-9).all()


def test_the_worst_point_stays_inside_where_algorithm_2_does() -> None:
    """A radius that the curvature bound is too large for."""
    net, radius = Plain((6,), "softplus", seed=8, scale=0.5), 20.0
    table = torch.from_numpy(net.curvatures())
    x0, j, i = ahead(net)
    margin = net.margin(j, i)
    concave, convex = table[j, i].expand(len(x0)), table[i, j].expand(len(x0))
    slow, eta = algorithm_2(margin, x0, concave, torch.maximum(concave, convex), radius)
    assert ((slow - x0).norm(dim=1) < 0.9 * radius).all()
    assert torch.allclose(eta, concave)
    fast = worst_point(margin, x0, radius, concave, steps=400)
    assert torch.allclose(slow, fast, atol=1e-2)
