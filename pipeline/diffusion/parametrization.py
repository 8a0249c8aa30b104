"""What a denoiser predicts: ε (Ho et al. 2020), or v = √ᾱ·ε − √(1−ᾱ)·x_0 (Salimans & Ho 2022).

Notable: on the way from ε to x_0 an error is multiplied by √((1−ᾱ)/ᾱ), more than a hundred in the
noisiest steps, where bf16 and a young network are not exact enough: samples have glaring colours.
On the way from v it is multiplied by at most 1.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Parametrization = Literal["epsilon", "v"]
IN_DIFFUSERS = {"epsilon": "epsilon", "v": "v_prediction"}
"""`prediction_type` of diffusers' schedulers."""


def target(kind: Parametrization, start: Tensor, noise: Tensor, kept: Tensor | float) -> Tensor:
    """What is to be predicted.

    Args:
        kind: which.
        start: x_0, [B, C, H, W].
        noise: ε, likewise.
        kept: ᾱ, a number or [B, 1, 1, 1].
    """
    return noise if kind == "epsilon" else kept**0.5 * noise - (1 - kept) ** 0.5 * start


def start_of(
    kind: Parametrization, noisy: Tensor, predicted: Tensor, kept: Tensor | float
) -> Tensor:
    """x_0 of x_t and a prediction; arguments as of `target`."""
    if kind == "epsilon":
        return (noisy - (1 - kept) ** 0.5 * predicted) / kept**0.5
    return kept**0.5 * noisy - (1 - kept) ** 0.5 * predicted
