"""Noise augmentation: fresh in every step, the same for every way to cut a batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipeline.objectives import build_objective
from pipeline.objectives.base import Stepwise
from pipeline.types import Batch, Prediction


class Recorder:
    """A linear model that keeps what it is shown."""

    def __init__(self) -> None:
        self.weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
        self.seen: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor) -> Prediction:
        self.seen.append(images)
        logits = images.flatten(1) @ self.weight.T
        return Prediction(logits, torch.ones(3, 3) - torch.eye(3), torch.ones(1))


def batch_of(count: int) -> Batch:
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(count) + 100
    return Batch(images, torch.arange(count) % 3, ids, torch.zeros(count, dtype=torch.bool))


def test_the_loss_is_that_of_noisy_images() -> None:
    model, batch = Recorder(), batch_of(600)
    losses = build_objective("gaussian_noise", sigma=0.5)(model, batch, 0.25)
    noise = (model.seen[0] - batch.images) / 0.5
    assert abs(float(noise.mean())) < 0.04 and abs(float(noise.std()) - 1) < 0.04
    logits = model.seen[0].flatten(1) @ model.weight.T
    expected = F.cross_entropy(logits, batch.labels, reduction="none")
    assert torch.equal(losses.per_sample, expected)
    assert torch.equal(losses.prediction.logits, logits)


def test_noise_depends_on_step_and_sample_alone() -> None:
    model, batch = Recorder(), batch_of(8)
    objective = build_objective("gaussian_noise", sigma=0.5)
    assert isinstance(objective, Stepwise)
    for step in (3, 4, 3):
        objective.begin_step(step)
        objective(model, batch, 0.25)
    objective.begin_step(3)
    for part in batch.split(4):
        objective(model, part, 0.25)
    first, second, third, *parts = model.seen
    assert torch.equal(first, third) and torch.equal(first, torch.cat(parts))
    assert not torch.isclose(first, second).any()


@pytest.mark.parametrize("sigma", [0, -1.0, float("inf"), True, "much"])
def test_a_sigma_out_of_range_is_refused(sigma: object) -> None:
    with pytest.raises(ValueError, match=r"objective\.sigma is .*, expected a finite number"):
        build_objective("gaussian_noise", sigma=sigma)
