"""AOL, almost orthogonal layers (Prach & Lampert, ECCV 2022): W·diag(d) with ‖W·diag(d)‖ ≤ 1.

    d_i = (Σ_j |WᵀW|_ij)^(−1/2)

Notable: the constant 1 holds in exact arithmetic, for every W and every input size. What is
exported is the folded kernel rounded to float32, and its bound is computed like that of any
convolution: it may be found below 1, which the training did not know, or a rounding above it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.layers.dense import ExportedDense
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.records import to_float32
from pipeline.lipschitz.power_iteration import NormRequest


def safe_inverse(x: Tensor) -> Tensor:
    """1/x, and 0 with slope 0 where x = 0. (1/(x + 1e-6) would break the theorem.)"""
    positive = x > 0
    return torch.where(positive, 1 / torch.where(positive, x, 1.0), 0.0)


def channel_products(kernels: Tensor) -> Tensor:
    """Σ over all shifts of |⟨kernel i shifted, kernel j⟩|: [n, c, k, k] or [n, c] -> [n, n].

    At least float32, whatever surrounds it: in bfloat16 the sums could fall short by 2⁻⁸, and the
    layers that are normalised by them be as much steeper than 1.
    """
    kernels = kernels.to(torch.promote_types(kernels.dtype, torch.float32))
    with torch.autocast(kernels.device.type, enabled=False):
        if kernels.ndim == 2:
            return (kernels @ kernels.T).abs()
        return F.conv2d(kernels, kernels, padding=kernels.shape[-1] - 1).abs().sum((2, 3))


class _Aol(LipschitzLayer):
    """What both have in common."""

    weight: nn.Parameter
    bias: nn.Parameter

    def folded(self, dtype: torch.dtype | None = None) -> Tensor:
        """W·diag(d), computed in `dtype` (default: the weight's)."""
        weight = self.weight.to(dtype or self.weight.dtype)
        scale = safe_inverse(channel_products(weight.transpose(0, 1)).sum(1)).sqrt()
        return weight * scale.to(weight).view(1, -1, *[1] * (weight.ndim - 2))

    def norm_request(self) -> NormRequest | None:
        """None: at most 1 by construction."""
        return None


class AolConv2d(_Aol):
    """A convolution with stride 1 that keeps the size of its maps: [B, I, H, W] -> [B, O, H, W].

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # The identity, as the paper starts. (nn.init.dirac_ sets one entry after the other.)
        middle = kernel_size // 2
        with torch.no_grad():
            self.weight.zero_()[:, :, middle, middle] = torch.eye(out_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.conv2d(x, self.folded(), self.bias, padding=self.weight.shape[-1] // 2)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        weight, bias = to_float32(self.folded(torch.float64)), to_float32(self.bias)
        return [ExportedConv2d(name, input_shape, weight, bias, 1, weight.shape[-1] // 2)]


class AolDense(_Aol):
    """A dense layer: [B, I] -> [B, O]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.linear(x, self.folded(), self.bias)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [
            ExportedDense(
                name, input_shape, to_float32(self.folded(torch.float64)), to_float32(self.bias)
            )
        ]
