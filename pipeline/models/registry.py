"""The models by name, for configs."""

from __future__ import annotations

import fnmatch
from functools import partial
from typing import Any

from pipeline.config import ModelConfig
from pipeline.models.blocks import TRANSFORMERS
from pipeline.models.cpl import cpl
from pipeline.models.liresnet import liresnet
from pipeline.models.network import LipschitzNetwork
from pipeline.models.slope_resnet import slope_resnet
from pipeline.models.small_networks import cnn, mlp
from pipeline.registry import Registry

_MODELS: Registry[LipschitzNetwork] = Registry(
    "model", given=("num_classes", "image_size", "in_channels")
)
_MODELS.add("liresnet", liresnet)
# The configurations of Table 1 of the paper.
_MODELS.add("liresnet_l6w128", partial(liresnet, depth=6, width=128))
_MODELS.add("liresnet_l12w512", partial(liresnet, depth=12, width=512))
_MODELS.add("liresnet_l12w588", partial(liresnet, depth=12, width=588))
# Tables 2 to 6: the networks that LiResNet is compared with, and its sizes.
_MODELS.add("convnet", partial(liresnet, block="convolution"))
_MODELS.add("resnet", partial(liresnet, block="residual"))
for _depth, _width in (*((_d, 256) for _d in (6, 12, 18, 24, 30, 36)), (12, 64), (12, 128)):
    _MODELS.add(f"liresnet_l{_depth}w{_width}", partial(liresnet, depth=_depth, width=_width))
for _depth in (6, 12, 18):
    for _name, _block in (("convnet", "convolution"), ("resnet", "residual")):
        _MODELS.add(
            f"{_name}_l{_depth}w256", partial(liresnet, depth=_depth, width=256, block=_block)
        )
# Appendix I: Lipschitz transformers, by default L12W256.
for _block in TRANSFORMERS:
    _MODELS.add(f"transformer_{_block}", partial(liresnet, depth=12, width=256, block=_block))
# LiResNet's skeleton with the layers of others.
for _block in ("aol", "bcop", "soc", "lot", "cayley", "cpl", "sll"):
    _MODELS.add(f"{_block}_net", partial(liresnet, block=_block))
_MODELS.add("cpl", cpl)
# Table 1 of the CPL paper.
_MODELS.add("cpl_s", partial(cpl, depth=20, channels=45, dense_depth=7, features=2048))
_MODELS.add("cpl_m", partial(cpl, depth=30, channels=60, dense_depth=10, features=2048))
_MODELS.add("cpl_l", partial(cpl, depth=90, channels=60, dense_depth=15, features=4096))
_MODELS.add("cpl_xl", partial(cpl, depth=120, channels=70, dense_depth=15, features=4096))
# "CPL XL, 236 M" in the tables of later papers has the sizes of SLL's X-Large.
_MODELS.add("cpl_236m", partial(cpl, depth=70, channels=120, dense_depth=15, features=2048))
# SLL's own sizes (Araujo et al. 2023).
for _name, _sizes in (
    ("s", (20, 45, 7)),
    ("m", (30, 60, 10)),
    ("l", (50, 90, 10)),
    ("xl", (70, 120, 15)),
):
    _MODELS.add(
        f"sll_{_name}",
        partial(cpl, depth=_sizes[0], channels=_sizes[1], dense_depth=_sizes[2], layer="sll"),
    )
# The smaller networks of CRM (plan 4c3f, 6c2f, 8c2f) and CRC.
_MODELS.add("cnn", cnn)
_MODELS.add("mlp", mlp)
_MODELS.add("slope_resnet", slope_resnet)


def list_models(pattern: str = "*") -> list[str]:
    """The names that `build_model` takes, sorted.

    Args:
        pattern: as of shell file names, e.g. "cpl*".
    """
    return fnmatch.filter(_MODELS.names(), pattern)


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


def model_of(section: ModelConfig) -> LipschitzNetwork:
    """The model that a config's section `model` describes. See `build_model`."""
    return build_model(
        section.name,
        section.num_classes,
        section.image_size,
        section.in_channels,
        **section.options,
    )
