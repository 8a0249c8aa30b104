"""Curvature bounds against Hessians by automatic differentiation; searches against each other."""

import itertools

import numpy as np
import pytest
import torch

from pipeline.layers.activation import IN_TRAINING
from pipeline.lipschitz.curvature_bound import curvature_bounds
from pipeline.lipschitz.curvature_estimate import curvature_table
from pipeline.lipschitz.curvature_search import nearest_point, worst_point
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
        return curvature_bounds(wide, norms, slopes, self.rows.astype(np.float64))


@pytest.mark.parametrize(
    ("hidden", "function"),
    [((6,), "softplus"), ((6,), "sigmoid"), ((6, 4), "tanh"), ((5, 4, 3), "softplus")],
)
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
    h, certified = SLOPES["tanh"].bend, net.curvatures()
    for j, i in [(0, 1), (2, 0)]:
        difference = np.abs(net.rows[j].astype(np.float64) - net.rows[i])
        deep = norms[0].item() ** 2 * (difference @ np.abs(weights[1].numpy())).max()
        shallow = (norms[1].item() * norms[0].item()) ** 2 * difference.max()
        assert table[j, i] == pytest.approx(h * (deep + shallow), rel=1e-6)
        assert table[j, i] <= certified[j, i] <= table[j, i] * (1 + 1e-6)


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
        nearest_point(margin, x0, concave, convex, steps=60),
    ):
        assert (eta <= 1 / concave + 1e-9).all()
        values.append(((x - x0) ** 2).sum(1) / 2 + eta * margin(x)[0])
    # Where the dual is not tight the last per mille of η is left out.
    assert torch.allclose(values[0], values[1], rtol=1e-2, atol=1e-4)
    assert (values[0] > 0).all()


def test_the_worst_point_is_that_of_algorithm_2() -> None:
    net, radius = Plain((6,), "softplus", seed=8, scale=0.5), 0.2
    table = torch.from_numpy(net.curvatures())
    x0, j, i = ahead(net)
    margin = net.margin(j, i)
    concave = table[j, i].expand(len(x0))
    steepest = torch.maximum(table[j, i], table[i, j]).expand(len(x0))
    slow, eta = algorithm_2(margin, x0, concave, steepest, radius)
    fast = worst_point(margin, x0, radius, steps=50)
    reached = ((slow - x0).norm(dim=1) - radius).abs() < 1e-3
    assert reached.sum() > len(x0) / 2 and (eta[reached] >= concave[reached]).all()
    assert torch.allclose(margin(slow)[0][reached], margin(fast)[0][reached], atol=1e-3)
    random = torch.from_numpy(np.random.default_rng(2).standard_normal((400, 1, PIXELS)))
    others = x0 + radius * random / random.norm(dim=2, keepdim=True)
    lowest = margin(others.reshape(-1, PIXELS))[0].reshape(400, -1).amin(0)
    assert (margin(fast)[0][reached] <= lowest[reached] + 1e-9).all()
