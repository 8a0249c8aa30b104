"""The hybrid loss of improved DDPM: L_simple + λ·L_vlb (Nichol & Dhariwal 2021, equation 16).

Notable:
- Timesteps, noise and hidden labels are functions of (seed, step, sample id): a run that goes on
  draws what it would have drawn, on any number of processes.
- The bound teaches the variance alone: the mean in it carries no gradient.
- Dropout of the network draws on torch's generator, which is seeded anew for each micro-batch from
  (seed, step, rank): another number of processes has other masks, a resumed run has the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.diffusion.draws import HIDDEN_LABEL, TIMESTEP, TRAINING_NOISE, keys, normal, uniform
from pipeline.diffusion.network import Denoised
from pipeline.diffusion.noise_schedule import NoiseSchedule
from pipeline.distributed import current_world
from pipeline.objectives.base import Losses
from pipeline.types import Batch

DROPOUT = 105
"""A purpose of `draws.keys`."""


class HybridLoss:
    """An `Objective` of a `Denoiser`, and `Stepwise`.

    Args:
        schedule: on the device of the batches.
        num_classes: K; also the label that hides a label.
        seed: of the run.
        class_dropout: probability of hiding a label.
        vlb_weight: λ.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        num_classes: int,
        seed: int,
        class_dropout: float,
        vlb_weight: float,
    ) -> None:
        self._schedule = schedule
        self._num_classes = num_classes
        self._seed = seed
        self._class_dropout = class_dropout
        self._vlb_weight = vlb_weight
        self._step = 0
        self._micro_batch = 0

    def begin_step(self, step: int) -> None:
        """See `Stepwise`."""
        self._step, self._micro_batch = step, 0

    def __call__(self, model: Callable[..., Any], batch: Batch, epsilon: float) -> Losses:
        """See `Objective`; `epsilon` means nothing here.

        The metrics: `mse`, the mean squared error of ε or v (L_simple); `vlb`, the estimate of the
        bound in bits a dimension (T times the term of the drawn timestep).
        """
        schedule, ids = self._schedule, batch.sample_ids
        start = 2 * batch.images - 1
        t = self._uniform(TIMESTEP, ids).mul(schedule.timesteps).long()
        noise = normal(keys(TRAINING_NOISE, self._seed, self._step, ids), start.shape[1:])
        hidden = self._uniform(HIDDEN_LABEL, ids) < self._class_dropout
        labels = batch.labels.masked_fill(hidden, self._num_classes)
        noisy = schedule.noisy(start, noise, t)
        self._seed_dropout()
        found: Denoised = model(noisy, t, labels)
        wanted = schedule.target(start, noise, t)
        mse = (found.predicted - wanted).square().flatten(1).mean(1)
        vlb = schedule.timesteps * bound_term(schedule, start, noisy, found, t)
        metrics = {"mse": mse.detach(), "vlb": vlb.detach()}
        return Losses(mse + self._vlb_weight * vlb, metrics)

    def _uniform(self, purpose: int, ids: Tensor) -> Tensor:
        """A number in [0, 1) for each sample, [B]."""
        return uniform(keys(purpose, self._seed, self._step, ids), 1)[:, 0]

    def _seed_dropout(self) -> None:
        rank, self._micro_batch = current_world().rank, self._micro_batch + 1
        torch.manual_seed(int(keys(DROPOUT, self._seed, self._step, rank, self._micro_batch)))


def bound_term(
    schedule: NoiseSchedule, start: Tensor, noisy: Tensor, found: Denoised, t: Tensor
) -> Tensor:
    """The term of L_vlb at t in bits a dimension, [B] (equations 4 to 7).

    Args:
        start: [B, C, H, W], x_0 in [-1, 1], of 256 levels.
        noisy: x_t.
        found: its gradient is that of the variance only.
        t: [B] int64.
    """
    true_mean = schedule.posterior_mean(start, noisy, t)
    guessed = schedule.start(noisy, found.predicted.detach(), t)
    mean = schedule.posterior_mean(guessed, noisy, t)
    true_log, log = schedule.log_variance(found.variance, t)
    divergence = 0.5 * (
        log - true_log - 1 + (true_log - log).exp() + (true_mean - mean).square() * (-log).exp()
    )
    decoder = -_log_probability(start, mean, 0.5 * log)
    term = torch.where((t == 0)[:, None, None, None], decoder, divergence)
    return term.flatten(1).mean(1) / math.log(2)


def _log_probability(levels: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Of pixels of 256 levels under a Gaussian, each level the interval around it (Ho et al.,
    equation 13): the outermost ones reach to infinity."""
    precision = (-log_deviation).exp()
    above = precision * (levels + 1 / 255 - mean)
    below = precision * (levels - 1 / 255 - mean)
    up_to = torch.special.ndtr(above)
    inside = up_to - torch.special.ndtr(below)
    tiny = 1e-12
    return torch.where(
        levels < -0.999,
        up_to.clamp(min=tiny).log(),
        torch.where(
            levels > 0.999,
            torch.special.ndtr(-below).clamp(min=tiny).log(),
            inside.clamp(min=tiny).log(),
        ),
    )
