"""SLL, SDP-based Lipschitz layers (Araujo et al., ICLR 2023): x − 2·Wᵀ T⁻¹ relu(Wx + b).

    T_ii = Σ_j |WWᵀ|_ij · q_j/q_i,  q > 0 trained

Notable:
- With V = T^(−1/2)·W it is x − 2·Vᵀ relu(Vx + T^(−1/2)·b), a convex potential of step 2, and the
  theorem says ‖V‖ ≤ 1. It is exported as that, with V rounded and its norm proved.
- No power iteration: T is a sum over the rows of W.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.aol import channel_products, safe_inverse
from pipeline.layers.base import LipschitzLayer
from pipeline.layers.convex_potential import freeze
from pipeline.layers.exported import ExportedLayer
from pipeline.lipschitz.power_iteration import NormRequest


class _Sll(LipschitzLayer):
    """What both have in common. `weight` is W: [hidden, D] or [hidden, C, k, k]."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0]))
        self.log_q = nn.Parameter(torch.zeros(shape[0]))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        limit = 1 / math.sqrt(math.prod(shape[1:]))
        nn.init.uniform_(self.bias, -limit, limit)

    def scales(self, weight: Tensor) -> Tensor:
        """T⁻¹ [hidden], in the dtype of `weight`."""
        ratios = (self.log_q[None, :] - self.log_q[:, None]).to(weight.dtype).exp()  # q_j/q_i
        return safe_inverse((channel_products(weight) * ratios).sum(1)).to(weight)

    def norm_request(self) -> NormRequest | None:
        """None: 1 by construction."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        with torch.no_grad():
            weight = self.weight.double()
            root = self.scales(weight).sqrt()
            scaled = root.view(-1, *[1] * (weight.ndim - 1)) * weight
            arrays = [np.asarray(t.cpu().numpy()) for t in (scaled, root * self.bias.double())]
        return [freeze(name, input_shape, arrays[0], arrays[1], step=2.0)]


class SllDense(_Sll):
    """A dense layer: [B, D] -> [B, D], `hidden` rows of W."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        hidden = torch.relu(F.linear(x, self.weight, self.bias))
        return x - 2 * F.linear(self.scales(self.weight) * hidden, self.weight.T)


class SllConv2d(_Sll):
    """A convolution that keeps the size of its maps: [B, C, H, W] -> the same."""

    def __init__(self, channels: int, hidden: int, kernel_size: int) -> None:
        super().__init__(hidden, channels, kernel_size, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        padding = self.weight.shape[-1] // 2
        hidden = torch.relu(F.conv2d(x, self.weight, self.bias, padding=padding))
        scaled = self.scales(self.weight).view(-1, 1, 1) * hidden
        return x - 2 * F.conv_transpose2d(scaled, self.weight, padding=padding)
