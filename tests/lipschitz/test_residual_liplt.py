"""LipLT of residual networks against (16) in explicit matrices, and against ascent."""

import math

import numpy as np
import pytest
import torch

from pipeline.lipschitz.diagonal_majorant import CHOICES, inner_norm, majorant
from pipeline.lipschitz.exact_map import ExactMap
from pipeline.lipschitz.inexact import Inexact
from pipeline.lipschitz.liplt_bound import liplt_bound
from pipeline.lipschitz.residual_liplt import (
    ResidualStage,
    layer_bound,
    residual_liplt_bound,
)
from pipeline.lipschitz.slopes import SLOPES
from tests.lipschitz.explicit import convolution_matrix

CLASSES = 4


def draw(random: np.random.Generator, *shape: int) -> np.ndarray:
    values = random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
    return values.astype(np.float32).astype(np.float64)


def stages_of(seed: int) -> list[ResidualStage]:
    """A strided convolution, a residual block of convolutions, a dense layer, a residual one."""
    random = np.random.default_rng(seed)
    return [
        ResidualStage(ExactMap(draw(random, 3, 1, 4, 4), (1, 5, 5), 2, 1), None, skip=False),
        ResidualStage(
            ExactMap(draw(random, 4, 3, 3, 3), (3, 2, 2), 1, 1),
            ExactMap(draw(random, 3, 4, 3, 3), (4, 2, 2), 1, 1),
        ),
        ResidualStage(ExactMap(draw(random, 6, 12), (12,)), None, skip=False),
        ResidualStage(ExactMap(draw(random, 8, 6), (6,)), ExactMap(draw(random, 6, 8), (8,))),
    ]


def matrix_of(linear: ExactMap) -> np.ndarray:
    if linear.weight.ndim == 2:
        return linear.weight
    pair = (linear.stride,) * 2, (linear.padding,) * 2
    return convolution_matrix(linear.weight, linear.input_shape[1:], *pair)


def equation_16(stages, slopes, last) -> tuple[list[float], float]:
    """M_0 … and the constant of the map that ends with `last`, without Theorem 2."""
    inner = [matrix_of(stage.inner) for stage in stages]
    outer = [
        np.eye(len(w)) if stage.outer is None else matrix_of(stage.outer)
        for stage, w in zip(stages, inner, strict=True)
    ]
    looped = []
    for stage, w, g, slope in zip(stages, inner, outer, slopes, strict=True):
        skip = np.eye(len(g)) if stage.skip else 0
        looped.append(skip + (slope.least + slope.most) / 2 * g @ w)
    found: list[float] = []
    for k in range(len(stages) + 1):
        moving = [*inner, last][k]
        total, terms = 0.0, []
        for j in reversed(range(k)):
            spread = (slopes[j].most - slopes[j].least) / 2
            terms.append(spread * np.linalg.norm(moving @ outer[j], 2) * found[j])
            moving = moving @ looped[j]
        total = np.linalg.norm(moving, 2) + sum(terms)
        found.append(total)
    return found[:-1], found[-1]


def run(stages, function: str, x: torch.Tensor) -> torch.Tensor:
    from pipeline.layers.activation import IN_TRAINING

    for stage in stages:
        hidden = IN_TRAINING[function](stage.inner.apply(x))
        y = hidden if stage.outer is None else stage.outer.apply(hidden)
        x = y.flatten(1) + (x.flatten(1) if stage.skip else 0)
    return x


@pytest.mark.parametrize("function", ["relu", "leaky_relu", "sigmoid"])
def test_bound_is_equation_16_or_better(function: str) -> None:
    stages = stages_of(0)
    slopes = [SLOPES[function]] * len(stages)
    rows = draw(np.random.default_rng(7), CLASSES, 6)
    bound = residual_liplt_bound(stages, slopes, rows, refine=True)
    plainly = residual_liplt_bound(stages, slopes, rows)
    refined = False
    for j, i in [(0, 1), (3, 2)]:
        constants, margin = equation_16(stages, slopes, (rows[j] - rows[i])[None])
        assert margin <= plainly.margins[j, i] <= margin * (1 + 1e-5)
        for ours, plain in zip(plainly.constants, constants, strict=True):
            assert plain * (1 - 1e-12) <= ours <= plain * (1 + 1e-5)
        assert bound.margins[j, i] <= plainly.margins[j, i]
        for ours, plain in zip(bound.constants, constants, strict=True):
            assert ours <= plain * (1 + 1e-5)
            refined |= ours < plain * (1 - 1e-3)
        # nothing that is found by ascent lies above
        x = torch.randn(64, 25, generator=torch.Generator().manual_seed(j)).double()
        difference = torch.from_numpy(rows[j] - rows[i])
        best = 0.0
        for _ in range(20):
            x.requires_grad_()
            (slope,) = torch.autograd.grad((run(stages, function, x) @ difference).sum(), x)
            lengths = slope.norm(dim=1, keepdim=True)
            best = max(best, float(lengths.max()))
            x = (x + slope / lengths.clamp(min=1e-12)).detach()
        assert 0 < best <= bound.margins[j, i]
    assert refined, "Theorem 2 never counted"
    assert (np.diag(bound.margins) == 0).all()
    assert (bound.margins[0, 1:] <= bound.logits[0] + bound.logits[1:]).all()


def test_a_sequential_network_has_the_constants_of_liplt() -> None:
    random = np.random.default_rng(1)
    maps = [
        ExactMap(draw(random, 3, 1, 3, 3), (1, 4, 4), 1, 1),
        ExactMap(draw(random, 5, 48), (48,)),
        ExactMap(draw(random, 5, 5), (5,)),
    ]
    rows = draw(random, CLASSES, 5)
    slopes = [SLOPES["relu"]] * 3
    stages = [ResidualStage(w, None, False) for w in maps]
    ours = residual_liplt_bound(stages, slopes, rows)
    plain = liplt_bound(maps, slopes, rows)
    assert (ours.margins <= plain.margins * (1 + 1e-5)).all()
    assert (ours.margins >= plain.margins * (1 - 1e-5)).all()
    assert ours.constants == pytest.approx(plain.constants, rel=1e-5)


@pytest.mark.parametrize("choice", CHOICES)
def test_majorants_are_above_and_theorem_2_holds(choice: str) -> None:
    random = np.random.default_rng(3)
    outer, weight = draw(random, 6, 8), draw(random, 8, 5)
    diagonal = majorant(Inexact(outer), choice)
    assert np.linalg.eigvalsh(np.diag(diagonal) - outer.T @ outer)[0] >= -1e-12
    reference = {
        "SN": np.full(8, np.linalg.norm(outer, 2) ** 2),
        "AOL": np.abs(outer.T @ outer).sum(1),
    }
    lengths = np.linalg.norm(outer, axis=0)
    reference["SLL"] = (np.abs(outer.T @ outer) * lengths / lengths[:, None]).sum(1)
    assert np.allclose(diagonal, reference[choice], rtol=1e-5)
    norm = inner_norm(weight, diagonal)
    exact = np.linalg.norm(np.sqrt(diagonal)[:, None] * weight, 2)
    assert exact <= norm <= exact * (1 + 1e-5)
    # an error of G is paid for
    off = np.ones_like(outer) / np.linalg.norm(np.ones_like(outer), 2) * 0.1
    wide = majorant(Inexact(outer, 0.1), choice)
    for other in (outer + off, outer - off):
        assert np.linalg.eigvalsh(np.diag(wide) - other.T @ other)[0] >= -1e-12


def test_unknown_choice_and_impossible_skips_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of SN, AOL, SLL"):
        majorant(Inexact(np.eye(2)), "aol")
    stage = ResidualStage(ExactMap(np.ones((3, 4)), (4,)), None, skip=True)
    with pytest.raises(ValueError, match="skip=False"):
        layer_bound(stage, SLOPES["relu"])


def test_a_1_lipschitz_layer_is_seen_to_be_one() -> None:
    """X − 2WᵀT⁻¹relu(Wx) with T of AOL (the paper's h): LipLT gives a little over 1."""
    random = np.random.default_rng(4)
    weight = draw(random, 8, 8)
    scale = np.abs(weight @ weight.T).sum(1)
    outer = (-2 * weight.T / scale).astype(np.float32).astype(np.float64)
    stage = ResidualStage(ExactMap(weight, (8,)), ExactMap(outer, (8,)))
    value, choice = layer_bound(stage, SLOPES["relu"])
    naive = 1 + np.linalg.norm(outer, 2) * np.linalg.norm(weight, 2)
    assert 1 <= value < naive and choice in CHOICES


def test_inexact_products_cover_the_truth() -> None:
    random = np.random.default_rng(5)
    exact = [random.standard_normal((4, 4)) for _ in range(3)]
    noise = [1e-3 * random.standard_normal((4, 4)) for _ in range(3)]
    held = [
        Inexact(a + n, float(np.linalg.norm(n, 2) * (1 + 1e-9)))
        for a, n in zip(exact, noise, strict=True)
    ]
    product = held[0] @ held[1] + held[2].scaled(0.3)
    truth = exact[0] @ exact[1] + 0.3 * exact[2]
    assert np.linalg.norm(product.matrix - truth, 2) <= product.error < 0.1
    assert np.linalg.norm(truth, 2) <= product.norm_bound().value
