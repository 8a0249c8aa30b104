"""LiResNet (Hu et al., "Scaling in Depth", NeurIPS 2023, Section 3 and Appendix B.2).

    shift → stem conv → MinMax → L × (I + β·Conv/√L → MinMax) → neck conv → MinMax → flatten
          → dense → MinMax → head with normalised rows

Notable:
- Only the stem knows the image size. For 32, 64 and 224 px it is the paper's and makes 16×16 maps;
  8 and 28 px, which the paper does not have, get small stems of their own.
- The paper's text gives the neck's convolution 2W outputs; its table of parameter counts holds only
  with W. W is the default, `neck_factor: 2` the text's reading.
- Maps that the neck's stride of 4 does not divide are padded with zeros, so that every pixel
  reaches the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from pipeline.layers.conv2d import Conv2d, output_size
from pipeline.layers.dense import Dense
from pipeline.layers.flatten import Flatten
from pipeline.layers.head import NormalizedHead
from pipeline.layers.shift import Shift
from pipeline.models.blocks import ACTIVATIONS, BLOCKS, backbone_block, make_activation
from pipeline.models.network import LipschitzNetwork
from pipeline.models.options import named_sequence, require_even
from pipeline.options import require_choice, require_count, require_number

NECK_KERNEL = 4
"""Side and stride of the neck's patches."""


@dataclass(frozen=True)
class Stem:
    """The first convolution, and how many features suit images of the size."""

    kernel: int
    stride: int
    padding: int
    features: int


STEMS = {
    8: Stem(kernel=3, stride=1, padding=1, features=128),  # 8×8 maps
    28: Stem(kernel=5, stride=2, padding=2, features=512),  # 14×14
    32: Stem(kernel=5, stride=2, padding=2, features=2048),  # 16×16, as all below
    64: Stem(kernel=7, stride=4, padding=3, features=2048),
    224: Stem(kernel=14, stride=14, padding=0, features=4096),
}


def liresnet(
    num_classes: int,
    image_size: int,
    in_channels: int = 3,
    depth: int = 12,
    width: int = 512,
    features: int | None = None,
    neck_factor: int = 1,
    center: float = 0.5,
    power_iterations: int = 5,
    block: str = "linear",
    activation: str = "minmax",
) -> LipschitzNetwork:
    """Build a LiResNet, e.g. L12W588 with `depth=12, width=588`, or a network it is compared with.

    Args:
        num_classes: K.
        image_size: H = W of the images.
        in_channels: C of the images.
        depth: L, blocks in the backbone.
        width: W, channels in the backbone; even.
        features: length of the vector before the head; even. By default 2048 for 32 and 64 px,
            4096 for 224 px, less for smaller images.
        neck_factor: the neck's convolution has `neck_factor · width` outputs.
        center: subtracted from every pixel value.
        power_iterations: steps of power iteration a forward.
        block: one of `pipeline.models.blocks.BLOCKS`: "linear" is LiResNet's, "convolution" makes
            the ConvNet of Table 2, "residual" the conventional ResNet of Appendix D.
        activation: one of `pipeline.models.blocks.ACTIVATIONS`, everywhere.

    Raises:
        ValueError: an image size without a stem, an odd width, or an option out of range.
    """
    if image_size not in STEMS:
        sizes = ", ".join(map(str, STEMS))
        raise ValueError(f"model.image_size is {image_size!r}, but liresnet has stems for {sizes}")
    stem = STEMS[image_size]
    features = stem.features if features is None else features
    require_count("model.num_classes", num_classes, least=2)
    require_count("model.in_channels", in_channels)
    require_count("model.depth", depth)
    require_even("model.width", width)
    require_even("model.features", features)
    require_count("model.neck_factor", neck_factor)
    require_count("model.power_iterations", power_iterations)
    require_number("model.center", center)
    require_choice("model.block", block, BLOCKS)
    require_choice("model.activation", activation, ACTIVATIONS)

    size = output_size(image_size, stem.kernel, stem.stride, stem.padding)
    neck_channels = neck_factor * width
    neck_padding = math.ceil((-size % NECK_KERNEL) / 2)
    neck_size = output_size(size, NECK_KERNEL, NECK_KERNEL, neck_padding)
    blocks = [
        backbone_block(block, width, depth, size, make_activation(activation, width))
        for _ in range(depth)
    ]
    trunk = named_sequence(
        shift=Shift(center),
        stem=named_sequence(
            conv=Conv2d(
                in_channels, width, stem.kernel, stem.stride, stem.padding, input_size=image_size
            ),
            act=make_activation(activation, width),
        ),
        backbone=nn.Sequential(*blocks),
        neck=named_sequence(
            conv=Conv2d(
                width, neck_channels, NECK_KERNEL, NECK_KERNEL, neck_padding, input_size=size
            ),
            act=make_activation(activation, neck_channels),
            flatten=Flatten(),
            dense=Dense(neck_channels * neck_size**2, features),
            dense_act=make_activation(activation, features),
        ),
    )
    head = NormalizedHead(features, num_classes)
    return LipschitzNetwork(trunk, head, (in_channels, image_size, image_size), power_iterations)
