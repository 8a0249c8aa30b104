"""Orthogonal layers: Cayley's dense layer, the same on patches, and BCOP's convolution.

Notable:
- They are orthogonal in exact arithmetic. What is exported is the product of it all, rounded to
  float32, as an ordinary matrix or kernel, and its bound is computed: nobody believes it is 1.
- Cayley: Q = (I − A)⁻¹(I + A) of the skew part A of a square matrix, cut to the shape that is asked
  for (Trockman & Kolter 2021; the midpoint step of CPL, Section 3.3).
- BCOP (Li et al. 2019): an orthogonal kernel of k×k is a product of one orthogonal matrix and, for
  each further column and row of taps, a pair of complementary projections (P, I − P). Zero padding
  instead of the paper's circular one only compresses the operator.
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


def cayley(raw: Tensor) -> Tensor:
    """An orthogonal matrix from any square one: [..., n, n] -> [..., n, n]."""
    skew = raw - raw.transpose(-1, -2)
    identity = torch.eye(raw.shape[-1], dtype=raw.dtype, device=raw.device)
    rotation: Tensor = torch.linalg.solve(identity - skew, identity + skew)
    return rotation


class CayleyDense(LipschitzLayer):
    """A dense layer with orthonormal rows or columns: [B, I] -> [B, O]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shape = (outputs, inputs)
        side = max(self.shape)
        self.weight = nn.Parameter(torch.empty(side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=side**-0.5 / 2)

    def matrix(self, dtype: torch.dtype | None = None) -> Tensor:
        """[O, I], computed in `dtype` (default: at least float32, without autocast)."""
        wide = dtype or torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(self.weight.device.type, enabled=False):
            return cayley(self.weight.to(wide))[: self.shape[0], : self.shape[1]]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.linear(x, self.matrix(), self.bias)

    def norm_request(self) -> NormRequest | None:
        """None: orthogonal."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        weight = to_float32(self.matrix(torch.float64))
        return [ExportedDense(name, input_shape, weight, to_float32(self.bias))]


class CayleyPatches(LipschitzLayer):
    """Orthonormal filters on patches that do not overlap: [B, I, H, W] -> [B, O, H/p, W/p].

    Args:
        in_channels: I.
        out_channels: O.
        patch: p, side and stride.
    """

    def __init__(self, in_channels: int, out_channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.dense = CayleyDense(in_channels * patch**2, out_channels)

    def kernel(self, dtype: torch.dtype | None = None) -> Tensor:
        """[O, I, p, p], computed in `dtype` (default: at least float32, without autocast)."""
        return self.dense.matrix(dtype).view(self.dense.shape[0], -1, self.patch, self.patch)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.conv2d(x, self.kernel(), self.dense.bias, stride=self.patch)

    def norm_request(self) -> NormRequest | None:
        """None: orthogonal."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        weight, bias = to_float32(self.kernel(torch.float64)), to_float32(self.dense.bias)
        return [ExportedConv2d(name, input_shape, weight, bias, self.patch, 0)]


class BcopConv2d(LipschitzLayer):
    """An orthogonal convolution that keeps channels and size: [B, C, H, W] -> the same.

    Args:
        channels: C, at least 2.
        kernel_size: k, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.channels, self.kernel_size = channels, kernel_size
        count = 1 + 2 * (kernel_size - 1)
        self.weight = nn.Parameter(torch.empty(count, channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.weight, std=channels**-0.5 / 2)

    def kernel(self, dtype: torch.dtype | None = None) -> Tensor:
        """[C, C, k, k], computed in `dtype` (default: at least float32, without autocast)."""
        wide = dtype or torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(self.weight.device.type, enabled=False):
            rotations = cayley(self.weight.to(wide))
            halves = rotations[1:, :, : self.channels // 2]
            projections = halves @ halves.transpose(1, 2)
            kernel = rotations[0][:, :, None, None]
            identity = torch.eye(self.channels, dtype=wide, device=kernel.device)
            for number, projection in enumerate(projections):
                pair = torch.stack([projection, identity - projection], dim=2)  # [C, C, 2]
                pair = pair[:, :, None, :] if number % 2 else pair[:, :, :, None]
                kernel = _composed(kernel, pair)
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.conv2d(x, self.kernel(), self.bias, padding=self.kernel_size // 2)

    def norm_request(self) -> NormRequest | None:
        """None: at most 1 by construction."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        weight = to_float32(self.kernel(torch.float64))
        return [
            ExportedConv2d(
                name, input_shape, weight, to_float32(self.bias), 1, self.kernel_size // 2
            )
        ]


def _composed(outer: Tensor, inner: Tensor) -> Tensor:
    """The kernel of `outer` after `inner`: [C, C, a, b], [C, C, c, d] -> [C, C, a+c−1, b+d−1]."""
    high, wide = inner.shape[2] - 1, inner.shape[3] - 1
    # Kernels compose by full convolution; F.conv2d correlates, hence the flip.
    turned = inner.transpose(0, 1).flip(2, 3)
    return F.conv2d(outer, turned, padding=(high, wide))
