"""The cosine schedule of diffusers, and the Gaussians of a diffusion that follow from it.

Notable: diffusers trains no variance; the posterior q(x_{t-1} | x_t, x_0) and the bounds of the
learned variance are here, in the notation of Nichol & Dhariwal (2021, equations 9 to 15).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.diffusion.library import import_diffusers
from pipeline.diffusion.parametrization import Parametrization, start_of, target

KIND = "squaredcos_cap_v2"
"""diffusers' name of the cosine schedule."""


class NoiseSchedule(nn.Module):
    """β_t of t = 0..T-1 and what is derived of it, each buffer [T] float32.

    Args:
        timesteps: T.
        prediction: what the network predicts.
    """

    alphas_cumprod: Tensor
    log_beta: Tensor
    log_posterior_variance: Tensor
    mean_of_start: Tensor
    mean_of_noisy: Tensor

    def __init__(self, timesteps: int, prediction: Parametrization = "epsilon") -> None:
        super().__init__()
        scheduler = import_diffusers().DDPMScheduler(timesteps, beta_schedule=KIND)
        betas = scheduler.betas.double()
        cumulated = (1 - betas).cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), cumulated[:-1]])
        posterior = betas * (1 - before) / (1 - cumulated)
        posterior[0] = posterior[1]  # it is 0, of which there is no logarithm
        tables = {
            "alphas_cumprod": cumulated,
            "log_beta": betas.log(),
            "log_posterior_variance": posterior.log(),
            "mean_of_start": betas * before.sqrt() / (1 - cumulated),
            "mean_of_noisy": (1 - before) * (1 - betas).sqrt() / (1 - cumulated),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float())
        self.timesteps, self.prediction = timesteps, prediction

    def noisy(self, start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of x_0 and ε, [B, C, H, W]; t is [B] int64 (equation 9)."""
        kept = _at(self.alphas_cumprod, t)
        return kept.sqrt() * start + (1 - kept).sqrt() * noise

    def target(self, start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict."""
        return target(self.prediction, start, noise, _at(self.alphas_cumprod, t))

    def start(self, noisy: Tensor, predicted: Tensor, t: Tensor) -> Tensor:
        """x_0 of x_t and what was predicted."""
        return start_of(self.prediction, noisy, predicted, _at(self.alphas_cumprod, t))

    def posterior_mean(self, start: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The mean of q(x_{t-1} | x_t, x_0) (equation 11)."""
        return _at(self.mean_of_start, t) * start + _at(self.mean_of_noisy, t) * noisy

    def log_variance(self, variance: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """log σ² of the posterior, [B, 1, 1, 1], and of the model.

        Args:
            variance: `Denoised.variance` (equation 15, with v = (variance + 1) / 2).
        """
        lower, upper = _at(self.log_posterior_variance, t), _at(self.log_beta, t)
        share = (variance + 1) / 2
        return lower, share * upper + (1 - share) * lower


def _at(table: Tensor, t: Tensor) -> Tensor:
    """The entries of t, [B, 1, 1, 1]."""
    return table[t][:, None, None, None]
