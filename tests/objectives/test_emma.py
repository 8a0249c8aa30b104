"""EMMA against Definition 3 written out sample by sample."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.objectives import build_objective
from pipeline.objectives.base import threatening_class
from pipeline.types import Batch, Prediction


def batch_of(labels: list[int]) -> Batch:
    count = len(labels)
    return Batch(
        torch.zeros(count, 1, 2, 2),
        torch.tensor(labels),
        torch.arange(count),
        torch.zeros(count, dtype=torch.bool),
    )


def says(logits: torch.Tensor, lipschitz: torch.Tensor):
    """A model that always predicts the same."""
    return lambda images: Prediction(logits, lipschitz, torch.ones(1))


def by_definition(logits: list[float], lipschitz: list[float], label: int, epsilon: float) -> float:
    """−log( exp f_y / Σ_i exp(f_i + ε̃_i K_yi) ), ε̃_i = clip(κ_i, 0, ε), κ_y = 0."""
    total = 0.0
    for i, logit in enumerate(logits):
        kappa = 0.0 if i == label else (logits[label] - logit) / lipschitz[i]
        total += math.exp(logit + min(max(kappa, 0.0), epsilon) * lipschitz[i])
    return math.log(total) - logits[label]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(seed=st.integers(0, 10_000), epsilon=st.sampled_from([0.0, 0.1, 0.5, 3.0]))
def test_it_is_definition_3(seed: int, epsilon: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
    rows = torch.rand(4, 4, generator=generator, dtype=torch.float64) + 0.1
    lipschitz = (rows + rows.T).fill_diagonal_(0)
    labels = torch.randint(0, 4, (5,), generator=generator).tolist()
    losses = build_objective("emma")(says(logits, lipschitz), batch_of(labels), epsilon)
    for n, label in enumerate(labels):
        expected = by_definition(logits[n].tolist(), lipschitz[label].tolist(), label, epsilon)
        assert float(losses.per_sample[n]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_at_radius_zero_it_is_cross_entropy() -> None:
    logits, lipschitz = torch.randn(6, 3), torch.ones(3, 3).fill_diagonal_(0)
    batch = batch_of([0, 1, 2, 0, 1, 2])
    emma, plain = (
        build_objective(name)(says(logits, lipschitz), batch, 0.0).per_sample
        for name in ("emma", "cross_entropy")
    )
    assert torch.allclose(emma, plain)


def test_the_radius_is_a_number_to_the_gradient() -> None:
    """With κ < ε the logit of class i would cancel out if ε̃ carried a gradient."""
    logits = torch.tensor([[1.0, 0.8, -2.0]], requires_grad=True)
    lipschitz = torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]], requires_grad=True)
    loss = build_objective("emma")(says(logits, lipschitz), batch_of([0]), 1.0)
    loss.per_sample.sum().backward()
    radii = torch.tensor([0.0, 0.2, 1.0])
    share = torch.softmax(logits.detach()[0] + radii * lipschitz.detach()[0], dim=0)
    expected = share - torch.tensor([1.0, 0, 0])
    assert torch.allclose(logits.grad[0], expected, atol=1e-6)
    assert torch.allclose(lipschitz.grad[0], radii * share, atol=1e-6)


def test_the_floor_is_added_to_classes_ahead_of_the_label_too() -> None:
    logits = torch.tensor([[0.0, 2.0, -5.0]])
    lipschitz = torch.tensor([[0.0, 2, 4], [2, 0, 1], [4, 1, 0]])
    loss = build_objective("emma", floor=0.01)(says(logits, lipschitz), batch_of([0]), 0.5)
    adapted = torch.tensor([0.0, 2.0 + 0.005 * 2, -5.0 + 0.5 * 4])
    assert float(loss.per_sample) == pytest.approx(float(adapted.logsumexp(0)), rel=1e-6)


def test_equal_rows_and_no_slope_give_no_nan() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [1e4, -1e4, 0.0]], requires_grad=True)
    losses = build_objective("emma")(says(logits, torch.zeros(3, 3)), batch_of([0, 0]), 0.5)
    losses.per_sample.sum().backward()
    assert bool(losses.per_sample.isfinite().all())
    assert bool(logits.grad.isfinite().all())


def test_metrics_are_strict() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0], [3.0, 1.0, 0.0]])
    lipschitz = torch.ones(3, 3).fill_diagonal_(0)
    losses = build_objective("emma")(says(logits, lipschitz), batch_of([0, 0, 0, 0]), 1.0)
    assert losses.metrics["correct"].tolist() == [1, 0, 0, 1], "a tie is not correct"
    assert losses.metrics["margin"].tolist() == [1, 0, -2, 2]
    assert losses.metrics["robust"].tolist() == [0, 0, 0, 1], "margin = epsilon K is not robust"


def test_the_threatening_class_is_the_second() -> None:
    logits = torch.tensor([[0.1, 5.0, 3.0], [9.0, 1.0, 2.0]])
    assert threatening_class(logits).tolist() == [2, 2]


def test_no_cube_of_batch_classes_and_features() -> None:
    """B = 256, K = 1000: only [B, K] tensors are made."""
    logits, lipschitz = torch.randn(256, 1000), torch.rand(1000, 1000)
    losses = build_objective("emma")(says(logits, lipschitz), batch_of([0] * 256), 0.2)
    assert losses.per_sample.shape == (256,)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("ema", {}, "no objective 'ema'; did you mean 'emma'?"),
        ("emma", {"flor": 0.1}, "no option 'flor'; did you mean 'floor'?"),
        ("emma", {"floor": 2}, "objective.floor is 2, expected a finite number"),
    ],
)
def test_mistakes_name_the_mend(name: str, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build_objective(name, **options)
