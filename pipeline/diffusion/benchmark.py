"""Samples a second of our sampler and of a plain diffusers loop, taking turns.

Notable: all draw with the same network (its averaged weights), the same solver and steps and the
same guidance. The plain loop is what diffusers' documentation writes: float32, two forwards a step
under guidance, the scheduler on its own timesteps; at 16 images a batch, as its example scripts
draw, and at our batch size; once more under autocast where ours draws in bfloat16. Turns change
order in every round, so that what else the machine does meets all alike; the second column, CPU
seconds, is what to read where much else runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline import config as configs
from pipeline import distributed
from pipeline.diffusion.generate import load_network
from pipeline.diffusion.library import import_diffusers
from pipeline.diffusion.network import Denoised, Denoiser
from pipeline.diffusion.noise_schedule import KIND
from pipeline.diffusion.parametrization import IN_DIFFUSERS
from pipeline.diffusion.sampler import LEAST_LOG_SNR, Sampler, Settings, classes_and_numbers

PLAIN_BATCH = 16
"""`eval_batch_size` of diffusers' training example."""


@dataclass
class Contender:
    """One way to draw."""

    name: str
    batch_size: int
    draw: Callable[[Tensor, Tensor], Tensor]
    """Labels and numbers [B] to images [B, C, H, W] uint8 on the CPU."""
    wall: list[float] = field(default_factory=list)
    """Seconds an image, one a round."""
    cpu: list[float] = field(default_factory=list)

    def turn(self, images: int, num_classes: int, device: torch.device) -> None:
        """Draw so many images and note the time."""
        began, worked = time.perf_counter(), time.process_time()
        for start in range(0, images, self.batch_size):
            indices = torch.arange(start, min(start + self.batch_size, images))
            self.draw(*classes_and_numbers(indices, num_classes))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.wall.append((time.perf_counter() - began) / images)
        self.cpu.append((time.process_time() - worked) / images)


class PlainLoop:
    """diffusers as its documentation uses it.

    Args:
        bf16: under autocast; `settings.bf16` is of ours alone.
    """

    def __init__(
        self, network: Denoiser, settings: Settings, device: torch.device, bf16: bool = False
    ) -> None:
        self._network, self._bf16 = network, bf16
        self._settings, self._device = settings, device
        self._shape, self._none = network.image_shape, network.num_classes

    @torch.no_grad()
    def __call__(self, labels: Tensor, numbers: Tensor) -> Tensor:
        """Draw, from noise of torch's generator."""
        settings, diffusers = self._settings, import_diffusers()
        common = {
            "beta_schedule": KIND,
            "prediction_type": IN_DIFFUSERS[settings.prediction],
        }
        scheduler = (
            diffusers.DDIMScheduler(settings.timesteps, **common)
            if settings.sampler == "ddim"
            else diffusers.DPMSolverMultistepScheduler(
                settings.timesteps, lambda_min_clipped=LEAST_LOG_SNR, **common
            )
        )
        scheduler.set_timesteps(settings.steps, device=self._device)
        labels = labels.to(self._device)
        images = torch.randn(len(labels), *self._shape, device=self._device)
        for t in scheduler.timesteps:
            predicted = self._predict(images, t, labels)
            if settings.guidance != 1:
                free = self._predict(images, t, torch.full_like(labels, self._none))
                predicted = free + settings.guidance * (predicted - free)
            images = scheduler.step(predicted, t, images).prev_sample
        images = (images / 2 + 0.5).clamp(0, 1)
        return (images * 255).round().to(torch.uint8).cpu()

    def _predict(self, images: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            found: Denoised = self._network(images, t, labels)
        return found.predicted


def measure(
    run: Path, settings: Settings, batch_size: int, images: int, rounds: int, compiled: bool
) -> list[Contender]:
    """Let all draw `images` images in each of `rounds` rounds.

    Args:
        run: of a generator; its T and what it predicts replace those of `settings`.
        settings: of our sampler; the plain loop has its solver, steps and guidance.
        compiled: our network also compiled.

    Raises:
        ValueError: no such run, or more steps than it trained with.
    """
    device = distributed.local_device(distributed.start())
    config = configs.load(run / "config.yaml")
    trained = config.diffusion
    settings = replace(settings, timesteps=trained.timesteps, prediction=trained.prediction)
    network, _ = load_network(run, config, "newest", device)
    same, _ = load_network(run, config, "newest", device)
    same = same.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain = PlainLoop(same, settings, device)
    contenders = [
        Contender("plain diffusers", PLAIN_BATCH, plain),
        Contender("plain diffusers", batch_size, plain),
    ]
    if settings.bf16:
        plain = PlainLoop(same, settings, device, bf16=True)
        contenders.append(Contender("plain diffusers, bf16", batch_size, plain))
    contenders.append(Contender("ours", batch_size, Sampler(network, settings, device)))
    if compiled:
        sampler = Sampler(network, settings, device, compiled=True)
        contenders.append(Contender("ours, compiled", batch_size, sampler))
    for contender in contenders:  # compiles, and fills what fills once
        contender.turn(contender.batch_size, network.num_classes, device)
        contender.wall, contender.cpu = [], []
    for number in range(rounds):
        shift = number % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            contender.turn(images, network.num_classes, device)
    return contenders


def table(contenders: list[Contender]) -> str:
    """Medians over the rounds; factors are medians of the ratios within a round."""
    rows = [f"{'':22}{'batch':>6}{'img/s':>9}{'img/CPU s':>11}{'factor':>8}{'CPU factor':>12}"]
    reference = contenders[1]
    for one in contenders:
        wall = statistics.median(one.wall)
        cpu = statistics.median(one.cpu)
        factor = statistics.median(b / a for a, b in zip(one.wall, reference.wall, strict=True))
        cpu_factor = statistics.median(b / a for a, b in zip(one.cpu, reference.cpu, strict=True))
        rows.append(
            f"{one.name:22}{one.batch_size:>6}{1 / wall:>9.1f}{1 / cpu:>11.1f}{factor:>8.2f}"
            f"{cpu_factor:>12.2f}"
        )
    return "\n".join(rows)
