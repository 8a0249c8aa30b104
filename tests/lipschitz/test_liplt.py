"""LipLT against Theorem 3 written out in explicit matrices, and against bounds from both sides."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from pipeline.lipschitz import liplt_bound as certified
from pipeline.lipschitz.exact_map import ExactMap, explicit_product
from pipeline.lipschitz.liplt_bound import liplt_bound
from pipeline.lipschitz.liplt_estimate import Map, combine, partial_norms, rows_through
from pipeline.lipschitz.liplt_estimate import start_vectors as starts
from pipeline.lipschitz.slopes import LEAK, SLOPES, Slopes
from tests.lipschitz.explicit import convolution_matrix

CLASSES = 4


def small_maps(seed: int) -> list[ExactMap]:
    """Padded, strided and rectangular convolutions (one whose stride leaves pixels over), dense."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        values = random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
        return values.astype(np.float32).astype(np.float64)

    return [
        ExactMap(draw(3, 2, 3, 3), (2, 6, 6), 1, 1),
        ExactMap(draw(4, 3, 4, 4), (3, 6, 6), 2, 1),
        ExactMap(draw(3, 4, 2, 2), (4, 3, 3), 2, 0),
        ExactMap(draw(7, 3), (3,)),
        ExactMap(draw(5, 7), (7,)),
    ]


def matrix_of(linear: ExactMap) -> np.ndarray:
    if linear.weight.ndim == 2:
        return linear.weight
    pair = (linear.stride,) * 2, (linear.padding,) * 2
    return convolution_matrix(linear.weight, linear.input_shape[1:], *pair)


def theorem_3(matrices, slopes, last):
    """Constants m_0 … and that of the map with `last` in place of W_L, by LAPACK."""
    centers = [(each.least + each.most) / 2 for each in slopes]
    spreads = [(each.most - each.least) / 2 for each in slopes]
    found = []
    for k in range(len(matrices) + 1):
        top = [*matrices, last][k]

        def product(j, k=k, top=top):
            value = top
            for i in range(k - 1, j - 1, -1):
                value = value @ (centers[i] * matrices[i])
            return value

        total = np.linalg.norm(product(0), 2)
        total += sum(spreads[j] * np.linalg.norm(product(j + 1), 2) * found[j] for j in range(k))
        found.append(total)
    return found[:-1], found[-1]


def rows_of(seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed + 100).standard_normal((CLASSES, 5))
    return rows.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("function", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_bound_and_estimate_are_theorem_3(function: str) -> None:
    maps, rows = small_maps(0), rows_of(0)
    slopes = [SLOPES[function]] * len(maps)
    bound = liplt_bound(maps, slopes, rows)
    matrices = [matrix_of(each) for each in maps]
    trainable = [Map(torch.from_numpy(m.weight), m.input_shape, m.stride, m.padding) for m in maps]
    vectors = [starts(len(maps), k, m.input_shape).double() for k, m in enumerate(maps)]
    norms = partial_norms(trainable, vectors, 400, update=True)
    apart = [torch.cdist(part, part) for part in rows_through(trainable, torch.from_numpy(rows))]
    constants, table = combine(norms, slopes, apart)
    for j, i in [(0, 1), (2, 3), (3, 0)]:
        reference, margin = theorem_3(matrices, slopes, (rows[j] - rows[i])[None])
        assert table[j, i].item() == pytest.approx(margin, rel=1e-4)
        assert margin <= bound.margins[j, i] <= margin * (1 + 1e-4)
        naive = math.prod(np.linalg.norm(each, 2) for each in matrices)
        naive *= math.prod(each.most for each in slopes) * np.linalg.norm(rows[j] - rows[i])
        assert bound.margins[j, i] < naive
        for ours, estimate, true in zip(bound.constants, constants, reference, strict=True):
            assert true <= ours <= true * (1 + 1e-4)
            assert estimate.item() == pytest.approx(true, rel=1e-4)
    assert (np.diag(bound.margins) == 0).all()
    assert bound.margins[0, 1] <= bound.logits[0] + bound.logits[1]


def test_warm_vectors_stay_and_gradients_are_those_of_the_norms() -> None:
    maps = small_maps(1)
    weights = [torch.from_numpy(each.weight).requires_grad_() for each in maps]
    trainable = [
        Map(weight, m.input_shape, m.stride, m.padding)
        for weight, m in zip(weights, maps, strict=True)
    ]
    vectors = [starts(len(maps), k, m.input_shape).double() for k, m in enumerate(maps)]
    partial_norms(trainable, vectors, 1000, update=True)
    held = [vector.clone() for vector in vectors]
    norms = partial_norms(trainable, vectors, 0, update=True)
    assert all(torch.equal(a, b) for a, b in zip(held, vectors, strict=True))
    norms[2][0].backward()  # ‖W_2 W_1 W_0‖
    direction = torch.randn(weights[1].shape, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-5

    def norm(sign: float) -> float:
        moved = ExactMap(
            (weights[1].detach() + sign * step * direction).numpy(),
            *((maps[1].input_shape, maps[1].stride, maps[1].padding)),
        )
        return np.linalg.norm(matrix_of(maps[2]) @ matrix_of(moved) @ matrix_of(maps[0]), 2)

    slope = (norm(1) - norm(-1)) / (2 * step)
    assert (weights[1].grad * direction).sum().item() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("transposed", [False, True])
def test_explicit_products_are_the_matrices(transposed: bool) -> None:
    maps = small_maps(2)
    chain = maps[1:4] if transposed else maps[:2]
    product = explicit_product(chain).numpy()
    truth = matrix_of(chain[0])
    for each in chain[1:]:
        truth = matrix_of(each) @ truth
    truth = truth if len(truth) <= truth.shape[1] else truth.T
    assert np.abs(product - truth).max() < 1e-13


def test_a_product_that_is_too_large_is_split_and_never_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps, rows = small_maps(3), rows_of(3)
    slopes = [SLOPES["relu"]] * len(maps)
    whole = liplt_bound(maps, slopes, rows)
    monkeypatch.setattr(certified, "MOST_ROWS", 4)
    parts = liplt_bound(maps, slopes, rows)
    methods = {bound.method for bound in parts.products.values()}
    assert "split" in methods and "torus-cholesky" in methods
    assert (parts.margins >= whole.margins).all() and parts.margins[0, 1] > whole.margins[0, 1]


def test_never_below_what_gradient_ascent_finds() -> None:
    maps, rows = small_maps(4), rows_of(4)
    slopes = [SLOPES["leaky_relu"]] * len(maps)
    bound = liplt_bound(maps, slopes, rows)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, *maps[0].input_shape, generator=generator).double().requires_grad_()
    difference = torch.from_numpy(rows[0] - rows[1])
    best = 0.0
    for _ in range(30):
        y = x
        for linear in maps:
            y = torch.nn.functional.leaky_relu(linear.apply(y), LEAK)
        (slope,) = torch.autograd.grad((y.flatten(1) @ difference).sum(), x)
        lengths = slope.flatten(1).norm(dim=1)
        best = max(best, lengths.max().item())
        x = (x + slope / lengths.view(-1, 1, 1, 1)).detach().requires_grad_()
    assert 0 < best <= bound.margins[0, 1]


def test_lipsdp_is_between_the_truth_and_liplt() -> None:
    """Theorem 1 on a tiny network: ρ(T) is a bound for every T, and the best is at most LipLT's."""
    for seed in range(3):
        random = np.random.default_rng(seed)
        inner = random.standard_normal((4, 3)).astype(np.float32).astype(np.float64)
        outer = random.standard_normal((2, 4)).astype(np.float32).astype(np.float64)
        ours = liplt_bound([ExactMap(inner, (3,))], [SLOPES["relu"]], outer).margins[0, 1]
        last = (outer[0] - outer[1])[None]

        def rho(logs: np.ndarray, inner=inner, last=last) -> float:
            scale = np.diag(np.exp(logs))
            middle = 2 * scale - last.T @ last
            if np.linalg.eigvalsh(middle)[0] <= 1e-9:
                return 1e6
            return np.linalg.norm(inner.T @ scale @ np.linalg.solve(middle, scale @ inner), 2)

        begin = np.full(4, math.log((last**2).sum()))
        best = minimize(rho, begin, method="Nelder-Mead", options={"maxiter": 1500})
        points = random.standard_normal((4000, 3))
        slopes = ((points @ inner.T > 0) * last) @ inner
        steepest = np.linalg.norm(slopes, axis=1).max()
        assert steepest <= math.sqrt(best.fun) * (1 + 1e-9) <= ours * (1 + 1e-9)


def test_the_spread_is_rounded_up() -> None:
    for slopes in [*SLOPES.values(), Slopes(0.1, 0.7), Slopes(1 / 3, 2 / 3)]:
        center = Fraction(slopes.center)
        need = max(Fraction(slopes.most) - center, center - Fraction(slopes.least))
        assert need <= Fraction(slopes.spread) <= need * (1 + Fraction(1, 10**9))
    assert SLOPES["relu"].spread == 0.5
