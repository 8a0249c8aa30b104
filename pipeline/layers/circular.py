"""A circular convolution as certified: what layers that work in the Fourier domain are folded into.

    y[i] = Σ_t W_t x[i + t mod n] + b,  the kernel as large as the maps

Notable: LOT and Cayley choose an orthogonal matrix for every frequency. What is stored is the
kernel in space, rounded to float32, evaluated by plain sums: no Fourier transform is trusted, and
the norm of what is stored is proved (`pipeline.lipschitz.circular`). A kernel of n² taps makes it
n²/9 times as slow as one of 3×3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from pipeline.layers.conv2d import convolve
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import read_tensor, require_shape
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

    weight: np.ndarray
    """[O, I, H, W] float32, tap (s, t) reads pixel (i + s mod H, j + t mod W)."""
    bias: np.ndarray
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

    def tensors(self) -> dict[str, np.ndarray]:
        """`weight` and `bias`."""
        return {f"{self.name}.weight": self.weight, f"{self.name}.bias": self.bias}

    @classmethod
    def from_record(
        cls,
        name: str,
        input_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray],
    ) -> ExportedCircularConv2d:
        """Read `weight` and `bias`.

        Raises:
            ValueError: one is missing or of the wrong kind or shape.
        """
        return cls(
            name,
            input_shape,
            weight=read_tensor(tensors, f"{name}.weight", ndim=4),
            bias=read_tensor(tensors, f"{name}.bias", ndim=1),
        )
