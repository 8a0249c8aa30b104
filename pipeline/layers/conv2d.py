"""Conv2d: a convolution with stride and zero padding, in training and as certified.

Notable: the exported twin computes by unfolding and one matrix product on every device. No
Winograd, FFT or TF32 kernel can slip in, so the rounding model of docs/certificate.md §5 holds.
Images are unfolded a few at a time, to keep the columns in tens of megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import require_shape, tensor, to_float32, whole
from pipeline.lipschitz.abs_norms import bias_norm_upper, conv_abs_norm_upper
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.conv import conv2d_norm_bound
from pipeline.lipschitz.power_iteration import NormRequest, start_vector
from pipeline.lipschitz.tight import tight_conv2d_norm_bound

COLUMN_ENTRIES = 1 << 23
"""Most unfolded entries at a time: 64 MiB of float64."""


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Pixels that come out of `size` pixels, along one axis."""
    return (size + 2 * padding - kernel) // stride + 1


def convolve(x: Tensor, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> Tensor:
    """A convolution by unfolding and one matrix product: [B, I, H, W] -> [B, O, H', W'].

    Args:
        x: float64 (or whatever it is to be computed in).
        weight: [O, I, kh, kw].
        bias: [O].
        stride: of both axes.
        padding: zeros on each side.
    """
    outputs, _, *kernel = weight.shape
    height, width = (
        output_size(size, side, stride, padding)
        for size, side in zip(x.shape[2:], kernel, strict=True)
    )
    matrix = torch.from_numpy(weight).to(x).flatten(1)  # [O, I·kh·kw]
    shift = torch.from_numpy(bias).to(x).view(outputs, 1)
    images = max(1, COLUMN_ENTRIES // (matrix.shape[1] * height * width))
    pieces = [
        matrix @ F.unfold(part, tuple(kernel), padding=padding, stride=stride) + shift
        for part in x.split(images)
    ]
    return torch.cat(pieces).view(-1, outputs, height, width)


@dataclass(frozen=True)
class ExportedConv2d(ExportedLayer):
    """A convolution as certified.

    Raises:
        ValueError: weight, bias, stride, padding and input shape do not fit each other.
    """

    kind: ClassVar[str] = "conv2d"

    weight: np.ndarray = field(metadata=tensor(ndim=4))
    """[O, I, kh, kw] float32."""
    bias: np.ndarray = field(metadata=tensor(ndim=1))
    """[O] float32."""
    stride: int = field(metadata=whole(least=1))
    padding: int = field(metadata=whole(least=0))

    def __post_init__(self) -> None:
        inputs, size = self.weight.shape[1], self.input_shape[1:3]
        require_shape(f"input of {self.name}", self.input_shape, (inputs, *size))
        require_shape(f"{self.name}.bias", self.bias.shape, self.weight.shape[:1])
        if len(size) != 2 or min(self.output_shape) < 1:
            raise ValueError(
                f"layer {self.name!r}: inputs of shape {list(self.input_shape)} are too small for "
                f"a kernel of {self.weight.shape[2]}×{self.weight.shape[3]} "
                f"with padding {self.padding}"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[O, H', W']."""
        outputs, _, *kernel = self.weight.shape
        sizes = zip(self.input_shape[1:], kernel, strict=True)
        return outputs, *(output_size(n, k, self.stride, self.padding) for n, k in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H', W'], float64."""
        return convolve(x, self.weight, self.bias, self.stride, self.padding)

    def norm_bound(self) -> NormBound:
        """Proved upper bound of the norm of the padded, strided operator at this input size."""
        size = (self.input_shape[1], self.input_shape[2])
        return conv2d_norm_bound(self.weight, size, self.stride, self.padding)

    def tight_norm_bound(self) -> NormBound:
        """The same with at most one axis on a torus: within 0.1 percent of the norm."""
        size = (self.input_shape[1], self.input_shape[2])
        return tight_conv2d_norm_bound(self.weight, size, self.stride, self.padding)

    def rounding(self) -> Rounding:
        """Fan-in I·kh·kw."""
        positions = self.output_shape[1] * self.output_shape[2]
        return Rounding(
            fan_in=self.weight[0].size,
            abs_norm=conv_abs_norm_upper(self.weight, self.stride, self.padding),
            bias_norm=bias_norm_upper(self.bias, positions),
        )


class Conv2d(LipschitzLayer):
    """A convolution in training, its flattened kernel orthogonal at the start.

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: of both axes.
        stride: of both axes.
        padding: zeros on each side.
        input_size: H = W of the maps it will be given; the norm depends on it.
    """

    vector: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        input_size: int,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("vector", start_vector((in_channels, input_size, input_size)))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H', W']."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def norm_request(self) -> NormRequest | None:
        """The kernel as it is."""
        return NormRequest(self.weight, self.vector, self.stride, self.padding)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        weight, bias = to_float32(self.weight), to_float32(self.bias)
        return [ExportedConv2d(name, input_shape, weight, bias, self.stride, self.padding)]
