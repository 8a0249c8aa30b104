"""Dot-product attention with orthogonal projections and a skip, after OLSA (LiResNet, Appendix I).

    x + Attention(x),  Attention = softmax(QKᵀ/√d)·V, then W^O; W^Q, W^K, W^V, W^O by Cayley

Notable: it trains and gets no certificate.
- Dot-product attention has no global Lipschitz constant (Kim et al. 2021, Theorem 3.1), with
  orthogonal projections no more than with others: the scores grow with the square of the tokens. A
  bound needs tokens that are bounded, and nothing before this layer bounds them.
- The paper of OLSA ("Certifiably Robust Transformers with 1-Lipschitz Self-Attention", a submission
  to ICLR 2023 that was withdrawn) has such a bound, put together of the entries of the softmax; we
  have its abstract only. Training takes the attention for 1-Lipschitz, as that title says.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.layers.base import CompositeLayer
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.orthogonal import cayley
from pipeline.lipschitz.power_iteration import NormRequest, start_vector


class OrthogonalAttention(CompositeLayer):
    """Attention over the positions of a map: [B, D, S, S] -> the same.

    Args:
        width: D, divisible by `heads`.
        heads: H.
    """

    vector: Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.empty(4, width, width))
        self.register_buffer("vector", start_vector((width,)))
        nn.init.normal_(self.weight, std=width**-0.5 / 2)

    def projections(self) -> Tensor:
        """W^Q, W^K, W^V and W^O: [4, D, D], orthogonal."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        if self.weight.is_meta:  # a network without its numbers; autocast knows no such device
            return cayley(self.weight.to(wide))
        with torch.autocast(self.weight.device.type, enabled=False):
            return cayley(self.weight.to(wide))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, width = x.shape[:2]
        *inputs, output = self.projections()
        tokens = x.flatten(2).transpose(1, 2)  # [B, N, D]
        queries, keys, values = (
            (tokens @ matrix.T).view(batch, -1, self.heads, width // self.heads).transpose(1, 2)
            for matrix in inputs
        )  # [B, H, N, D/H]
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(width // self.heads)
        joined = (torch.softmax(scores, dim=-1) @ values).transpose(1, 2).flatten(2)
        return x + (joined @ output.T).transpose(1, 2).reshape(x.shape)

    def norm_requests(self) -> list[NormRequest]:
        """W^O, which is orthogonal: for the estimate to be one."""
        return [NormRequest(self.projections()[3], self.vector)]

    def lipschitz(self, norms: list[Tensor]) -> Tensor:
        """1 for the skip and 1 for the attention, which no theorem here says."""
        return 1 + norms[0]

    def refusal(self) -> str | None:
        """Always."""
        return (
            "dot-product attention has no global Lipschitz constant, and nothing bounds its tokens "
            "(OLSA; LiResNet, Appendix I): take a spatial_mlp block for a certificate"
        )

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"layer {name!r} cannot be certified: {self.refusal()}")
