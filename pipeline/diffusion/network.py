"""The denoiser: diffusers' UNet as improved DDPM has it, conditioned on the class.

Notable:
- One class more than there are is embedded: "none", for images whose label is hidden in training
  and for classifier-free guidance.
- It gives two numbers a pixel: the noise, and where the variance lies between its two bounds
  (Nichol & Dhariwal 2021, equation 15).
- With `patch: p` the UNet sees p×p pixels as the channels of one (Luhman & Luhman 2022, "Improving
  diffusion model efficiency through patching"): the full size, where much of its time goes, is
  left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.diffusion.library import import_diffusers

NAME = "unet"
OPTIONS: dict[str, Any] = {
    "channels": 128,
    "multipliers": [1, 2, 2, 2],
    "blocks": 3,
    "attention": [16, 8],
    "patch": 1,
    "head_channels": 64,
    "dropout": 0.0,
}
"""Of the section `model`: width at full size, its multiples at each halving, residual blocks a
size, the sizes with attention, the side of a patch (sizes are counted in patches), channels of a
head, dropout."""


@dataclass(frozen=True)
class Denoised:
    """What one forward says of noisy images."""

    predicted: Tensor
    """[B, C, H, W], of ε or v (`parametrization`)."""
    variance: Tensor
    """[B, C, H, W], nominally in [-1, 1]: the lower to the upper bound of log σ²."""


class Denoiser(nn.Module):
    """ε and log-variance of x_t.

    Args:
        unet: takes [B, C, H, W] and gives [B, 2C, H, W], of patches: with p²C for C, H/p and W/p.
        num_classes: K; the label K stands for "none".
        image_shape: [C, H, W].
        patch: p.
    """

    def __init__(
        self,
        unet: nn.Module,
        num_classes: int,
        image_shape: tuple[int, int, int],
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.unet = unet
        self.num_classes = num_classes
        self.image_shape = image_shape

    def forward(self, noisy: Tensor, timesteps: Tensor, labels: Tensor) -> Denoised:
        """Denoise.

        Args:
            noisy: [B, C, H, W], x_t; images without noise lie in [-1, 1].
            timesteps: [B] int64 in 0..T-1.
            labels: [B] int64 in 0..K.
        """
        patches = F.pixel_unshuffle(noisy, self.patch) if self.patch > 1 else noisy
        (output,) = self.unet(patches, timesteps, class_labels=labels, return_dict=False)
        if self.patch > 1:
            output = F.pixel_shuffle(output, self.patch)
        return Denoised(*output.chunk(2, dim=1))


def build_denoiser(model: ModelConfig) -> Denoiser:
    """The network of a run's `model` section, its weights drawn from torch's global generator.

    Raises:
        ValueError: an unknown name or option, or one that does not fit the images.
    """
    options = _options(model)
    widths = [options["channels"] * factor for factor in options["multipliers"]]
    halvings, patch = len(widths) - 1, options["patch"]
    if model.image_size % patch:
        raise ValueError(
            f"model.patch {patch} does not divide images of {model.image_size} pixels: take a "
            "divisor"
        )
    full = model.image_size // patch
    if full % 2**halvings:
        raise ValueError(
            f"model.multipliers has {len(widths)} sizes, and {_side(model.image_size, patch)} "
            f"cannot be halved {halvings} times: take fewer"
        )
    sizes = [full >> level for level in range(len(widths))]
    attends = [size in options["attention"] for size in sizes]
    for width, attending in zip(widths, [*attends[:-1], True], strict=True):
        if attending and width % options["head_channels"]:
            raise ValueError(
                f"model.head_channels {options['head_channels']} does not divide the {width} "
                "channels of a size with attention: take a divisor"
            )
    unet = import_diffusers().UNet2DModel(
        sample_size=full,
        in_channels=patch**2 * model.in_channels,
        out_channels=2 * patch**2 * model.in_channels,
        block_out_channels=tuple(widths),
        layers_per_block=options["blocks"],
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        attention_head_dim=options["head_channels"],
        norm_num_groups=math.gcd(32, *widths),
        resnet_time_scale_shift="scale_shift",
        dropout=float(options["dropout"]),
        num_class_embeds=model.num_classes + 1,
    )
    shape = (model.in_channels, model.image_size, model.image_size)
    return Denoiser(unet, model.num_classes, shape, patch)


def _side(size: int, patch: int) -> str:
    """What the UNet sees of images, for a sentence."""
    return f"images of {size // patch} {'pixels' if patch == 1 else f'patches of {patch} pixels'}"


def _options(model: ModelConfig) -> dict[str, Any]:
    """The options with their defaults.

    Raises:
        ValueError: one is unknown or of another kind.
    """
    if model.name != NAME:
        raise ValueError(
            f"model.name is {model.name!r}, and the task ddpm_train has one network: {NAME}"
        )
    for name, value in model.options.items():
        if name not in OPTIONS:
            raise ValueError(f"model {NAME!r} has no option {name!r}: known: {', '.join(OPTIONS)}")
        numbers = value if isinstance(value, list) else [value]
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
        if name == "dropout":
            if not (isinstance(value, int | float) and 0 <= value < 1):
                raise ValueError(f"model.dropout is {value!r}, expected a share from 0 to below 1")
        elif not whole or isinstance(value, list) != isinstance(OPTIONS[name], list):
            expected = "a list of whole numbers" if isinstance(OPTIONS[name], list) else "a number"
            raise ValueError(f"model.{name} is {value!r}, expected {expected} above 0")
    chosen = OPTIONS | model.options
    if not chosen["multipliers"]:
        raise ValueError("model.multipliers is empty: give at least [1]")
    return chosen
