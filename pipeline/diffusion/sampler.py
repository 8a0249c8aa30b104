"""Drawing images: diffusers' DDIM or DPM-Solver++ around the averaged network.

Notable:
- Sample k of class c starts from noise fixed by (seed, c, k) and nothing else; both solvers draw
  no more. Batches have one size always, so that a sample's pixels do not depend on who draws it.
- The solvers are given x_0, cut to [-1, 1], where images lie: without the cut a guided sample
  drifts out of range. (DDIM's ε is then that of the cut x_0, as OpenAI's is.)
- Guidance is one forward of twice the batch, not two. Scheduler arithmetic stays on the host:
  nothing in a step waits for the GPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.diffusion.draws import START, keys, normal
from pipeline.diffusion.library import import_diffusers
from pipeline.diffusion.network import Denoised, Denoiser
from pipeline.diffusion.noise_schedule import KIND
from pipeline.diffusion.parametrization import Parametrization, start_of

LEAST_LOG_SNR = -5.1
"""Where DPM-Solver++ begins on a cosine schedule, whose last steps are pure noise (diffusers'
advice for `lambda_min_clipped`)."""


@dataclass(frozen=True)
class Settings:
    """How samples are drawn from a network; all that their pixels depend on, apart from it."""

    timesteps: int
    """T of the training."""
    steps: int
    sampler: Literal["dpm++", "ddim"] = "dpm++"
    guidance: float = 1.0
    """1 is none."""
    seed: int = 0
    bf16: bool = False
    prediction: Parametrization = "epsilon"
    """Of the training."""

    def scheduler(self) -> Any:
        """diffusers' scheduler, set to the steps.

        Raises:
            ValueError: more steps than the solver tells apart.
        """
        scheduler = self._scheduler()
        if self.steps <= self.timesteps:
            scheduler.set_timesteps(self.steps)
            # Where T / steps is rounded, DDIM's row may have one too many: -1.
            scheduler.timesteps = scheduler.timesteps[: self.steps]
        if self.steps > self.timesteps or len(scheduler.timesteps.unique()) < self.steps:
            most = self.most_steps()
            raise ValueError(
                f"sampling.steps {self.steps} is more than {self.sampler} tells apart among the "
                f"{self.timesteps} steps of the generator: take {most} or less"
            )
        return scheduler

    def most_steps(self) -> int:
        """The most that are all different. A step from t to t divides by zero.

        On a cosine schedule DPM-Solver++ leaves the noisiest few out (`LEAST_LOG_SNR`).
        """
        if self.sampler == "ddim":
            return self.timesteps
        scheduler = self._scheduler()
        scheduler.set_timesteps(1)
        return int(scheduler.timesteps[0])

    def _scheduler(self) -> Any:
        diffusers = import_diffusers()
        common = {"beta_schedule": KIND, "prediction_type": "sample"}
        if self.sampler == "ddim":
            return diffusers.DDIMScheduler(
                self.timesteps, clip_sample=False, timestep_spacing="trailing", **common
            )
        return diffusers.DPMSolverMultistepScheduler(
            self.timesteps, lambda_min_clipped=LEAST_LOG_SNR, **common
        )


class Sampler:
    """Draws batches of labelled images.

    Args:
        network: in evaluation mode, on `device`.
        device: where it computes.
        compiled: by torch.compile, at the first batch.
    """

    def __init__(
        self, network: Denoiser, settings: Settings, device: torch.device, compiled: bool = False
    ) -> None:
        settings.scheduler()  # refuses what cannot be
        self.settings = settings
        self._shape = network.image_shape
        self._none = network.num_classes
        self._device = device
        self._forward: Any = torch.compile(network) if compiled else network

    @torch.no_grad()
    def __call__(self, labels: Tensor, numbers: Tensor) -> Tensor:
        """Images of some classes.

        Args:
            labels: [B] int64, c of each.
            numbers: [B] int64, k of each among its class.

        Returns:
            [B, C, H, W] uint8 on the CPU.

        Raises:
            ValueError: the network gives numbers that are not finite.
        """
        labels, numbers = labels.to(self._device), numbers.to(self._device)
        x = normal(keys(START, self.settings.seed, labels, numbers), self._shape)
        x = x.contiguous(memory_format=torch.channels_last)
        scheduler = self.settings.scheduler()
        kept = scheduler.alphas_cumprod.double()
        with self._autocast():
            for t in scheduler.timesteps:
                start = self._start(x, int(t), labels, float(kept[t]))
                x = scheduler.step(start, t, x).prev_sample
        x = x.float().cpu()
        bad = ~x.isfinite().flatten(1).all(1)
        if bad.any():  # as uint8 they would be black
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"sample {int(numbers[first])} of class {int(labels[first])} has pixels that are "
                "not finite: take sampling.precision fp32, or another sampling.checkpoint"
            )
        return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def _start(self, x: Tensor, t: int, labels: Tensor, kept: float) -> Tensor:
        """The network's x_0, guided and cut, float32."""
        weight = self.settings.guidance
        if weight == 1:
            predicted = self._predict(x, t, labels)
        else:
            both = torch.cat([labels, torch.full_like(labels, self._none)])
            given, free = self._predict(torch.cat([x, x]), t, both).chunk(2)
            predicted = free + weight * (given - free)
        return start_of(self.settings.prediction, x, predicted, kept).clamp(-1, 1)

    def _predict(self, x: Tensor, t: int, labels: Tensor) -> Tensor:
        found: Denoised = self._forward(x, torch.full_like(labels, t), labels)
        return found.predicted.float()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.settings.bf16)


def classes_and_numbers(indices: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """c and k of samples by their index: classes take turns, so that every count is balanced."""
    return indices % num_classes, indices // num_classes
