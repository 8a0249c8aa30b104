"""LinearResidual: x + β·Conv(x)/√L, the block of LiResNet (Section 3; Appendix B.2).

Notable:
- Nothing nonlinear stands in the branch, so the whole block is one convolution with the kernel
  I + β·W/√L. Its norm is a norm of one operator, not the loose 1 + ‖Conv‖ of a usual residual.
- β is a multiplier per output channel, 1 at the start; W starts near zero, so the block starts as
  the identity and deep networks train without normalisation layers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.records import to_float32
from pipeline.lipschitz.power_iteration import NormRequest, start_vector

KERNEL_SIZE = 3


class LinearResidual(LipschitzLayer):
    """One block, activation apart.

    Args:
        width: channels in and out.
        depth: L, the number of blocks in the backbone.
        input_size: H = W of the maps, or (H, W).
        kernel_size: odd; 1 makes the LiFFN of a transformer (Appendix I).
    """

    vector: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        input_size: int | tuple[int, int],
        kernel_size: int = KERNEL_SIZE,
    ) -> None:
        super().__init__()
        sizes = (input_size, input_size) if isinstance(input_size, int) else input_size
        self.scale = 1 / math.sqrt(depth)
        self.margin = kernel_size // 2
        self.weight = nn.Parameter(torch.empty(width, width, kernel_size, kernel_size))
        self.beta = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("vector", start_vector((width, *sizes)))
        # As in the authors' code: small enough that the block is the identity to begin with.
        nn.init.normal_(self.weight, std=1 / (kernel_size**2 * width))

    def kernel(self, dtype: torch.dtype | None = None) -> Tensor:
        """I + β·W/√L as one kernel [W, W, 3, 3], computed in `dtype` (default: the weight's)."""
        weight = self.weight.to(dtype or self.weight.dtype)
        factor = (self.beta.to(weight) * self.scale).view(-1, 1, 1, 1)
        identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        return F.pad(identity[:, :, None, None], [self.margin] * 4) + factor * weight

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, H, W] -> the same shape."""
        return F.conv2d(x, self.kernel(), self.bias, padding=self.margin)

    def norm_request(self) -> NormRequest | None:
        """The folded kernel."""
        return NormRequest(self.kernel(), self.vector, padding=self.margin)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        weight, bias = to_float32(self.kernel(torch.float64)), to_float32(self.bias)
        return [ExportedConv2d(name, input_shape, weight, bias, 1, self.margin)]
