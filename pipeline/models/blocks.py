"""The blocks that a backbone of LiResNet's shape can be made of, and its activations.

Notable: one key of the config changes the layer; stem, neck, head, objective and data stay, so that
layers are compared with each other and not with each other's training.
"""

from __future__ import annotations

from torch import nn

from pipeline.layers.aol import AolConv2d
from pipeline.layers.base import LipschitzLayer
from pipeline.layers.conv2d import Conv2d
from pipeline.layers.cpl import ConvexPotentialConv2d
from pipeline.layers.fourier import CayleyConv2d, LotConv2d
from pipeline.layers.group_sort import GroupSort
from pipeline.layers.householder import Householder
from pipeline.layers.isometries import SwapTokens
from pipeline.layers.l2_attention import L2Attention
from pipeline.layers.linear_residual import LinearResidual
from pipeline.layers.minmax import MinMax
from pipeline.layers.orthogonal import BcopConv2d
from pipeline.layers.orthogonal_attention import OrthogonalAttention
from pipeline.layers.residual import Residual
from pipeline.layers.skew import SkewExponential
from pipeline.layers.sll import SllConv2d
from pipeline.models.options import named_sequence

TRANSFORMERS = ("spatial_mlp_liffn", "spatial_mlp_ffn", "l2_attention_ffn", "olsa_ffn")
"""Appendix I: what stands for self-attention, and for the feed-forward block."""
BLOCKS = (
    "linear", "convolution", "residual", "aol", "bcop", "soc", "lot", "cayley", "cpl", "sll",
    *TRANSFORMERS,
)  # fmt: skip
ACTIVATIONS = ("minmax", "householder", "group_sort")
KERNEL = 3
GROUP = 4
"""Channels that GroupSort sorts together; 2 would be MinMax in another order."""


def backbone_block(
    kind: str, width: int, depth: int, size: int, activation: LipschitzLayer
) -> nn.Sequential:
    """One block: a layer and its activation. "cpl" and "sll" bring their own.

    Args:
        kind: one of `BLOCKS`.
        width: channels.
        depth: L, blocks in the backbone.
        size: H = W of the maps.
        activation: of this block.
    """
    if kind == "cpl":
        return named_sequence(conv=ConvexPotentialConv2d(width, width, KERNEL, size))
    if kind == "sll":
        return named_sequence(conv=SllConv2d(width, width, KERNEL))
    if kind in TRANSFORMERS:
        return _transformer(kind, width, depth, size, activation)
    return named_sequence(conv=_layer(kind, width, depth, size), act=activation)


def make_activation(kind: str, channels: int) -> LipschitzLayer:
    """An activation for maps or vectors of so many channels.

    Raises:
        ValueError: groups that do not divide the channels.
    """
    if kind == "householder":
        return Householder(channels)
    if kind == "group_sort":
        if channels % GROUP:
            raise ValueError(
                f"model.activation group_sort sorts {GROUP} channels at a time, and {channels} is "
                f"not a multiple of {GROUP}"
            )
        return GroupSort(GROUP)
    return MinMax()


def _transformer(
    kind: str, width: int, depth: int, size: int, activation: LipschitzLayer
) -> nn.Sequential:
    """Positions are mixed, then channels; no layer normalisation, which is not Lipschitz."""
    feed = (
        LinearResidual(width, depth, size, kernel_size=1)
        if kind.endswith("liffn")
        else Residual(width, width, 1, size)
    )
    heads = next(count for count in (4, 2, 1) if width % count == 0)
    if kind.startswith("olsa"):
        return named_sequence(
            attention=OrthogonalAttention(width, heads), feed=feed, act=activation
        )
    if kind.startswith("l2_attention"):
        return named_sequence(attention=L2Attention(width, heads, size), feed=feed, act=activation)
    return named_sequence(
        tokens=SwapTokens(width),
        mix=LinearResidual(size**2, depth, (width, 1), kernel_size=1),
        channels=SwapTokens(size),
        feed=feed,
        act=activation,
    )


def _layer(kind: str, width: int, depth: int, size: int) -> LipschitzLayer:
    if kind == "linear":
        return LinearResidual(width, depth, size)
    if kind == "residual":
        return Residual(width, width, KERNEL, size)
    if kind == "aol":
        return AolConv2d(width, width, KERNEL)
    if kind == "bcop":
        return BcopConv2d(width, KERNEL)
    if kind == "soc":
        return SkewExponential(width, KERNEL, size)
    if kind == "lot":
        return LotConv2d(width, KERNEL, size)
    if kind == "cayley":
        return CayleyConv2d(width, KERNEL, size)
    return Conv2d(width, width, KERNEL, 1, KERNEL // 2, input_size=size)
