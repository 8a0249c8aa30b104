"""The schedules against the formulas of LiResNet's Appendix B.1."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import config
from pipeline.training.schedules import (
    EpsilonRamp,
    LearningRate,
    TriangularRate,
    learning_rate_of,
)


def run_config(**sections):
    tree = {"name": "run", "model": {"name": "liresnet", "num_classes": 10, "image_size": 32}}
    return config.parse(tree | sections)


@pytest.mark.parametrize("epoch", [0, 1, 7, 100, 399, 400, 401, 799])
def test_epsilon_is_the_papers_at_every_epoch(epoch: int) -> None:
    epochs, steps_per_epoch = 800, 195  # CIFAR-10: 50,000 images in batches of 256
    ramp = EpsilonRamp.of(run_config(training={"epochs": epochs}), steps_per_epoch)
    paper = (min(2 * epoch / epochs, 1) * 1.9 + 0.1) * 36 / 255
    assert ramp(epoch * steps_per_epoch) == pytest.approx(paper, rel=1e-12)


def test_epsilon_grows_within_an_epoch_and_then_stays() -> None:
    ramp = EpsilonRamp(target=1.0, start=0.1, end=2.0, ramp=0.5, total_steps=100)
    values = [ramp(step) for step in range(100)]
    assert values[0] == pytest.approx(0.1)
    assert all(later > sooner for sooner, later in itertools.pairwise(values[:51]))
    assert values[50:] == [2.0] * 50


def test_epsilon_reads_its_section() -> None:
    flat = run_config(epsilon={"target": "0.25", "start": 0.3, "end": 1.5, "ramp": 0})
    ramp = EpsilonRamp.of(flat, steps_per_epoch=10)
    assert [ramp(step) for step in (0, 5, 9)] == [0.375] * 3
    whole = run_config(epsilon={"target": "1", "start": 2, "end": 1, "ramp": 1})
    falling = EpsilonRamp.of(whole, steps_per_epoch=4)
    assert [falling(step) for step in range(4)] == [2.0, 1.75, 1.5, 1.25]


def test_learning_rate_by_hand() -> None:
    rate = LearningRate(peak=1.0, total_steps=12, warmup_steps=4)
    assert [rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    cosine = [0.5 * (1 + math.cos(math.pi * (step - 4) / 8)) for step in range(4, 12)]
    assert [rate(step) for step in range(4, 12)] == pytest.approx(cosine, rel=1e-12)
    assert rate(8) == pytest.approx(0.5)
    assert 0 < rate(11) < 0.04
    assert rate(12) == pytest.approx(0, abs=1e-15)


def test_learning_rate_without_warm_up_begins_at_the_peak() -> None:
    rate = LearningRate.of(run_config(optimizer={"lr": 2e-3}, training={"epochs": 5}), 7)
    assert (rate.peak, rate.total_steps, rate.warmup_steps) == (2e-3, 35, 0)
    assert rate(0) == 2e-3


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    total=st.integers(1, 500),
    share=st.floats(0, 1, exclude_max=True),
    step=st.integers(0, 499),
)
def test_learning_rate_is_positive_and_below_the_peak(total: int, share: float, step: int) -> None:
    rate = LearningRate(peak=0.1, total_steps=total, warmup_steps=share * total)
    if step < total:
        assert 0 < rate(step) <= 0.1


def test_warm_up_as_long_as_the_training_is_refused() -> None:
    settings_ = run_config(training={"epochs": 5, "warmup_epochs": 5})
    with pytest.raises(ValueError, match=r"training\.warmup_epochs 5 must be smaller"):
        LearningRate.of(settings_, steps_per_epoch=10)


def test_the_triangle_by_hand() -> None:
    rate = TriangularRate(peak=1.0, total_steps=5)  # middles at 0.1, 0.3, 0.5, 0.7, 0.9
    assert [rate(step) for step in range(5)] == pytest.approx([0.25, 0.75, 0.7625, 0.2875, 0.025])


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 1000))
def test_every_step_of_the_triangle_learns(total: int) -> None:
    rates = [TriangularRate(0.1, total)(step) for step in range(total)]
    assert all(0 < rate <= 0.1 for rate in rates)
    peak = max(range(total), key=rates.__getitem__)
    assert rates == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)


def test_the_schedule_is_chosen_by_name() -> None:
    assert learning_rate_of(run_config(), 3) == LearningRate.of(run_config(), 3)
    triangle = run_config(training={"epochs": 4, "schedule": "triangular"}, optimizer={"lr": 0.5})
    assert learning_rate_of(triangle, 3) == TriangularRate(0.5, 12)
    warm = run_config(training={"epochs": 4, "schedule": "triangular", "warmup_epochs": 1})
    with pytest.raises(ValueError, match=r"training\.warmup_epochs is 1, but the triangular"):
        learning_rate_of(warm, 3)
