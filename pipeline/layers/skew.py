"""Skew orthogonal convolutions, SOC (Singla & Feizi 2021): the exponential of a skew convolution.

    y = Σ_{j ≤ J} Aʲx/j! + b,  A the zero-padded convolution with a kernel K = M − flip(M)ᵀ

Theorem: A is exactly skew in floats (a − b and b − a round to opposite numbers), so the sum is a
normal operator with eigenvalues Σ (iλ)ʲ/j!, |λ| ≤ U for any U ≥ ‖A‖. By Taylor's remainder for
e^{iλ} its norm is at most 1 + U^{J+1}/(J+1)!. The series is not orthogonal, nor said to be.

Notable: it is the exact flow of CPL's Section 3.3. Training divides A by an estimate of its norm
and takes `TRAINING_TERMS`; the exported kernel is divided by a proved bound and summed to `TERMS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.conv2d import convolve
from pipeline.layers.convex_potential import TINY, weight_norm
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import require_shape, tensor, to_float32, whole
from pipeline.lipschitz.abs_norms import bias_norm_upper, conv_abs_norm_upper
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.conv import conv2d_norm_bound
from pipeline.lipschitz.power_iteration import NormRequest, start_vector
from pipeline.lipschitz.rounding import add_up, mul_up, up

TRAINING_TERMS = 6
TERMS = 12
"""J, as the paper's evaluation."""


@dataclass(frozen=True)
class ExportedSkewExponential(ExportedLayer):
    """The truncated exponential as certified.

    Raises:
        ValueError: a kernel that is not exactly skew, or shapes that do not fit.
    """

    kind: ClassVar[str] = "skew_exponential"
    presumed_lipschitz: ClassVar[float | None] = 1.0

    weight: np.ndarray = field(metadata=tensor(ndim=4))
    """K: [C, C, k, k] float32, odd k, K[o, i, t, v] = −K[i, o, k−1−t, k−1−v]."""
    bias: np.ndarray = field(metadata=tensor(ndim=1))
    """[C] float32."""
    terms: int = field(metadata=whole(least=1))
    """J."""

    def __post_init__(self) -> None:
        channels, side = len(self.weight), self.weight.shape[2]
        require_shape(f"{self.name}.weight", self.weight.shape, (channels, channels, side, side))
        require_shape(f"input of {self.name}", self.input_shape, (channels, *self.input_shape[1:]))
        require_shape(f"{self.name}.bias", self.bias.shape, (channels,))
        if side % 2 == 0 or not np.array_equal(self.weight, -turned(self.weight)):
            raise ValueError(f"layer {self.name!r}: its kernel is not skew, or not of odd side")

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape, float64."""
        nothing = np.zeros(len(self.bias), np.float32)
        total, term = x, x
        for number in range(1, self.terms + 1):
            term = convolve(term, self.weight, nothing, 1, self.weight.shape[2] // 2) / number
            total = total + term
        return total + torch.from_numpy(self.bias).to(x).view(-1, 1, 1)

    def norm_bound(self) -> NormBound:
        """1 + U^{J+1}/(J+1)!, rounded up."""
        size = (self.input_shape[1], self.input_shape[2])
        norm = conv2d_norm_bound(self.weight, size, 1, self.weight.shape[2] // 2)
        remainder = 1.0
        for number in range(1, self.terms + 2):
            remainder = up(mul_up(remainder, norm.value) / number)
        value = add_up(1.0, remainder)
        if not math.isfinite(value):
            return NormBound(math.inf, "none", {"reason": "the norm of the kernel is not finite"})
        return NormBound(value, f"skew-{norm.method}", {"weight_norm": norm.value, **norm.evidence})

    def rounding(self) -> Rounding:
        """As of the matrix Σ |K|ʲ/j!: J products, divisions and sums, one after the other."""
        absolute = conv_abs_norm_upper(self.weight, 1, self.weight.shape[2] // 2)
        total, term = 1.0, 1.0
        for number in range(1, self.terms + 1):
            term = up(mul_up(term, absolute) / number)
            total = add_up(total, term)
        shift = bias_norm_upper(self.bias, math.prod(self.input_shape[1:]))
        return Rounding(
            fan_in=self.terms * (self.weight[0].size + 2),
            abs_norm=total,
            bias_norm=add_up(shift, mul_up(total, TINY)),
            inner_norm=mul_up(float(self.terms), total),  # before the divisions
        )


def turned(kernel: np.ndarray) -> np.ndarray:
    """The kernel of the transposed operator: [O, I, k, k] -> [I, O, k, k]."""
    return kernel.swapaxes(0, 1)[:, :, ::-1, ::-1]


class SkewExponential(LipschitzLayer):
    """SOC in training: [B, C, H, W] -> the same.

    Args:
        channels: C.
        kernel_size: odd.
        input_size: H = W of the maps.
    """

    vector: Tensor

    def __init__(self, channels: int, kernel_size: int, input_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("vector", start_vector((channels, input_size, input_size)))
        nn.init.normal_(self.weight, std=1 / (kernel_size * channels**0.5))

    def kernel(self) -> Tensor:
        """M − flip(M)ᵀ."""
        return self.weight - self.weight.transpose(0, 1).flip(2, 3)

    def forward(self, x: Tensor, norm: Tensor) -> Tensor:
        """[B, C, H, W], the estimate of ‖A‖ -> [B, C, H, W]."""
        is_zero = norm == 0
        kernel = self.kernel() / torch.where(is_zero, 1.0, norm)
        total, term = x, x
        for number in range(1, TRAINING_TERMS + 1):
            term = F.conv2d(term, kernel, padding=kernel.shape[-1] // 2) / number
            total = total + term
        return total + self.bias.view(-1, 1, 1)

    def norm_request(self) -> NormRequest | None:
        """None: nearly orthogonal by construction."""
        return None

    def scale_request(self) -> NormRequest | None:
        """A."""
        return NormRequest(self.kernel(), self.vector, padding=self.weight.shape[-1] // 2)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`: the kernel divided by a proved bound of its norm."""
        kernel = self.kernel().detach().cpu().numpy()
        norm = weight_norm(kernel, input_shape).value
        scaled = kernel.astype(np.float64) / (norm if norm > 0 else 1.0)
        weight = np.ascontiguousarray(scaled.astype(np.float32))  # opposite numbers round alike
        bias = to_float32(self.bias)
        return [ExportedSkewExponential(name, input_shape, weight, bias, TERMS)]
