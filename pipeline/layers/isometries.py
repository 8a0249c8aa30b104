"""Isometries that change a map's shape: zero channels, pixels as channels, tokens for channels.

Notable: they only place numbers elsewhere. Lipschitz constant 1, nothing rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExactLayer, ExportedLayer
from pipeline.layers.records import whole
from pipeline.lipschitz.power_iteration import NormRequest


@dataclass(frozen=True)
class ExportedPadChannels(ExactLayer):
    """Zero channels appended, as certified (CPL, Section 4.2).

    Raises:
        ValueError: fewer channels than come in.
    """

    kind: ClassVar[str] = "pad_channels"

    channels: int = field(metadata=whole(least=1))
    """That come out."""

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or self.channels < self.input_shape[0]:
            raise ValueError(
                f"layer {self.name!r}: inputs of shape {list(self.input_shape)} cannot be padded "
                f"to {self.channels} channels"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[channels, H, W]."""
        return self.channels, *self.input_shape[1:]

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, channels, H, W], exact."""
        return _padded(x, self.channels)


class PadChannels(LipschitzLayer):
    """Zero channels appended: [B, C, H, W] -> [B, channels, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return _padded(x, self.channels)

    def norm_request(self) -> NormRequest | None:
        """None: an isometry."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedPadChannels(name, input_shape, self.channels)]


@dataclass(frozen=True)
class ExportedPixelUnshuffle(ExactLayer):
    """Patches of s×s pixels as channels, as certified.

    Raises:
        ValueError: s does not divide the maps.
    """

    kind: ClassVar[str] = "pixel_unshuffle"

    factor: int = field(metadata=whole(least=1))
    """s."""

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or any(side % self.factor for side in self.input_shape[1:]):
            raise ValueError(
                f"layer {self.name!r}: patches of {self.factor}×{self.factor} do not divide inputs "
                f"of shape {list(self.input_shape)}"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[C·s², H/s, W/s]."""
        channels, *sides = self.input_shape
        return channels * self.factor**2, *(side // self.factor for side in sides)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C·s², H/s, W/s], exact."""
        return F.pixel_unshuffle(x, self.factor)


class PixelUnshuffle(LipschitzLayer):
    """Patches of s×s pixels as channels: [B, C, H, W] -> [B, C·s², H/s, W/s]."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.pixel_unshuffle(x, self.factor)

    def norm_request(self) -> NormRequest | None:
        """None: an isometry."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedPixelUnshuffle(name, input_shape, self.factor)]


@dataclass(frozen=True)
class ExportedSwapTokens(ExactLayer):
    """Channels and positions change places, as certified.

    Raises:
        ValueError: the channels do not make columns of the height.
    """

    kind: ClassVar[str] = "swap_tokens"

    height: int = field(metadata=whole(least=1))
    """Of the maps that come out."""

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or self.input_shape[0] % self.height:
            raise ValueError(
                f"layer {self.name!r}: inputs of shape {list(self.input_shape)} cannot become maps "
                f"of height {self.height}"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[H·W, height, C/height]."""
        channels, *sides = self.input_shape
        return sides[0] * sides[1], self.height, channels // self.height

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, H·W, height, C/height], exact."""
        return _swapped(x, self.height)


class SwapTokens(LipschitzLayer):
    """Channels and positions change places: [B, C, H, W] -> [B, H·W, height, C/height].

    A convolution of one pixel then mixes positions. Twice, with the right heights, is the identity.
    """

    def __init__(self, height: int) -> None:
        super().__init__()
        self.height = height

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return _swapped(x, self.height)

    def norm_request(self) -> NormRequest | None:
        """None: an isometry."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedSwapTokens(name, input_shape, self.height)]


def _swapped(x: Tensor, height: int) -> Tensor:
    return x.flatten(2).transpose(1, 2).reshape(len(x), -1, height, x.shape[1] // height)


def _padded(x: Tensor, channels: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))
