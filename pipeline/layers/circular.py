"""A circular convolution as certified: what layers that work in the Fourier domain are folded into.

    y[i] = Σ_t W_t x[i + t mod n] + b,  the kernel as large as the maps

Notable: LOT and Cayley choose an orthogonal matrix for every frequency. What is stored is the
kernel in space, rounded to float32, evaluated by plain sums: no Fourier transform is trusted, and
the norm of what is stored is proved (`pipeline.lipschitz.circular`). A kernel of n² taps makes it
n²/9 times as slow as one of 3×3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from pipeline.layers.conv2d import convolve
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import require_shape, tensor
from pipeline.lipschitz.abs_norms import bias_norm_upper, conv_abs_norm_upper
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.circular import circular_norm_bound


@dataclass(frozen=True)
class ExportedCircularConv2d(ExportedLayer):
    """See the module.

    Raises:
        ValueError: weight, bias and input shape do not fit each other.
    """

    kind: ClassVar[str] = "circular_conv2d"

    weight: np.ndarray = field(metadata=tensor(ndim=4))
    """[O, I, H, W] float32, tap (s, t) reads pixel (i + s mod H, j + t mod W)."""
    bias: np.ndarray = field(metadata=tensor(ndim=1))
    """[O] float32."""

    def __post_init__(self) -> None:
        require_shape(f"input of {self.name}", self.input_shape, self.weight.shape[1:])
        require_shape(f"{self.name}.bias", self.bias.shape, self.weight.shape[:1])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[O, H, W]."""
        return self.weight.shape[0], *self.input_shape[1:]

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H, W], float64: an ordinary convolution of the repeated maps."""
        high, wide = self.input_shape[1:]
        repeated = F.pad(x, (0, wide - 1, 0, high - 1), mode="circular")
        return convolve(repeated, self.weight, self.bias, 1, 0)

    def norm_bound(self) -> NormBound:
        """Proved upper bound of the norm: of the blocks of its discrete Fourier transform."""
        return circular_norm_bound(self.weight)

    def rounding(self) -> Rounding:
        """Fan-in I·H·W; |W| is steepest at frequency 0, as without wrapping."""
        return Rounding(
            fan_in=self.weight[0].size,
            abs_norm=conv_abs_norm_upper(self.weight),
            bias_norm=bias_norm_upper(self.bias, math.prod(self.input_shape[1:])),
        )
