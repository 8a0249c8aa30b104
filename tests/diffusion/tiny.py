"""What the tests of generators have in common: networks of a thousand weights on 8x8 digits."""

from pathlib import Path

import torch

from pipeline import config
from pipeline.config import RunConfig
from pipeline.diffusion.network import Denoiser, build_denoiser
from pipeline.diffusion.sampler import Sampler, Settings

TIMESTEPS = 40


def settings(output: Path, **changes: object) -> RunConfig:
    """A run of four steps, two an epoch."""
    tree = {
        "name": "tiny",
        "output": str(output),
        "task": "ddpm_train",
        "seed": 3,
        "data": {"train": "digits", "val": "digits", "workers": 1},
        "model": {
            "name": "unet", "num_classes": 10, "image_size": 8, "in_channels": 1, "channels": 8,
            "multipliers": [1], "blocks": 1, "attention": [], "head_channels": 4, "dropout": 0.1,
        },
        "diffusion": {
            "timesteps": TIMESTEPS, "ema": 0.9,
            "monitor": {"images": 10, "steps": 2, "batch_size": 10},
        },
        "optimizer": {"name": "adam", "lr": 1e-3, "clip_norm": 1.0},
        "training": {"epochs": 2, "batch_size": 700},
        "checkpoint": {"every_steps": 1, "keep": 10},
    }  # fmt: skip
    return config.parse(tree | changes)


def denoiser() -> Denoiser:
    torch.manual_seed(1)
    return build_denoiser(settings(Path("x")).model).eval()


def sampler(network: Denoiser, **changes: object) -> Sampler:
    given = {"timesteps": TIMESTEPS, "steps": 4} | changes
    return Sampler(network, Settings(**given), torch.device("cpu"))  # type: ignore[arg-type]
