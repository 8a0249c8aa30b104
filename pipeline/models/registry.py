"""The models by name, for configs."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.models.liresnet import liresnet
from pipeline.models.network import LipschitzNetwork
from pipeline.models.slope_resnet import slope_resnet
from pipeline.models.small_networks import convnet, mlp
from pipeline.registry import Registry

_MODELS: Registry[LipschitzNetwork] = Registry(
    "model", given=("num_classes", "image_size", "in_channels")
)
_MODELS.add("liresnet", liresnet)
# The configurations of Table 1 of the paper.
_MODELS.add("liresnet_l6w128", partial(liresnet, depth=6, width=128))
_MODELS.add("liresnet_l12w512", partial(liresnet, depth=12, width=512))
_MODELS.add("liresnet_l12w588", partial(liresnet, depth=12, width=588))
# The smaller networks of CRM (plan 4c3f, 6c2f, 8c2f) and CRC.
_MODELS.add("convnet", convnet)
_MODELS.add("mlp", mlp)
_MODELS.add("slope_resnet", slope_resnet)


def list_models() -> list[str]:
    """The names that `build_model` takes, sorted."""
    return _MODELS.names()


def build_model(
    name: str, num_classes: int, image_size: int, in_channels: int = 3, **options: Any
) -> LipschitzNetwork:
    """Build a model; a config's `model` section is exactly these arguments.

    Args:
        name: one of `list_models()`.
        num_classes: K.
        image_size: H = W of the images.
        in_channels: C of the images.
        options: of the chosen model, e.g. `depth=12, width=588` of `pipeline.models.liresnet`.

    Returns:
        A module whose forward takes images [B, C, H, W] in [0, 1] and returns a `Prediction`. Its
        weights are drawn from torch's global generator.

    Raises:
        ValueError: an unknown name or option, with the near miss, or an option out of range.
    """
    return _MODELS.build(name, num_classes, image_size, in_channels, **options)
