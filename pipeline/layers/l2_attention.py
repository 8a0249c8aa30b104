"""L2 multi-head self-attention (Kim et al., ICML 2021), with a skip: x + Attention(x).

Notable:
- Dot-product attention is not Lipschitz. With scores −‖q_i − q_j‖²/√d and queries equal to keys it
  is, and Theorem 3.2 of the paper bounds it:
      √(N·H/D)·(4·φ⁻¹(N − 1) + 1)·√(Σ_h ‖W_h^Q‖²·‖W_h^V‖²)·‖W^O‖,  φ(x) = x·e^{x+1},
  N positions, D channels, H heads. Training regularises 1 + that.
- It gets no certificate: the theorem is of the exact softmax, and the rounding model of
  docs/certificate.md §5 has sums, products and comparisons, no exponential.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.layers.base import CompositeLayer
from pipeline.layers.exported import ExportedLayer
from pipeline.lipschitz.power_iteration import NormRequest, start_vector


class L2Attention(CompositeLayer):
    """Attention over the positions of a map: [B, D, S, S] -> the same.

    Args:
        width: D, divisible by `heads`.
        heads: H.
        input_size: S; N = S².
    """

    query_vectors: Tensor
    value_vectors: Tensor
    output_vector: Tensor

    def __init__(self, width: int, heads: int, input_size: int) -> None:
        super().__init__()
        size = width // heads
        self.positions = input_size**2
        self.query = nn.Parameter(torch.empty(heads, size, width))
        self.value = nn.Parameter(torch.empty(heads, size, width))
        self.output = nn.Parameter(torch.empty(width, width))
        vectors = torch.stack([start_vector((width,))] * heads)
        self.register_buffer("query_vectors", vectors)
        self.register_buffer("value_vectors", vectors.clone())
        self.register_buffer("output_vector", start_vector((width,)))
        for weight in (self.query, self.value, self.output):
            nn.init.normal_(weight, std=0.1 * width**-0.5)  # near the identity, with the skip

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        tokens = x.flatten(2).transpose(1, 2)  # [B, N, D]
        scale = math.sqrt(self.query.shape[1])
        queries = torch.einsum("bnd,hkd->bhnk", tokens, self.query)
        squares = queries.square().sum(-1)
        products = queries @ queries.transpose(-1, -2)
        scores = 2 * products - squares[..., :, None] - squares[..., None, :]
        attention = torch.softmax(scores / scale, dim=-1)  # [B, H, N, N]
        # Every head applies its A = W_Qᵀ W_Q/√d before W_V, as the theorem needs.
        turned = torch.einsum("bhnk,hkd->bhnd", queries, self.query) / scale
        values = torch.einsum("bhnd,hkd->bhnk", attention @ turned, self.value)
        joined = values.transpose(1, 2).flatten(2)  # [B, N, D]
        return x + (joined @ self.output.T).transpose(1, 2).reshape(x.shape)

    def norm_requests(self) -> list[NormRequest]:
        """W^Q and W^V of every head, then W^O."""
        pairs = zip(
            (*self.query, *self.value), (*self.query_vectors, *self.value_vectors), strict=True
        )
        requests = [NormRequest(weight, vector) for weight, vector in pairs]
        return [*requests, NormRequest(self.output, self.output_vector)]

    def lipschitz(self, norms: list[Tensor]) -> Tensor:
        """1 + the bound of Theorem 3.2."""
        heads, size = self.query.shape[:2]
        queries, values = torch.stack(norms[:heads]), torch.stack(norms[heads:-1])
        factor = math.sqrt(self.positions / size) * (4 * inverse_phi(self.positions - 1) + 1)
        return 1 + factor * (queries * values).square().sum().sqrt() * norms[-1]

    def refusal(self) -> str | None:
        """Always."""
        return (
            "its bound is one of the exact softmax, whose rounding nothing here bounds (L2-MHA; "
            "LiResNet, Appendix I): take a spatial_mlp block for a certificate"
        )

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"layer {name!r} cannot be certified: {self.refusal()}")


def inverse_phi(value: float) -> float:
    """The x ≥ 0 with x·e^{x+1} = `value` ≥ 0, by Newton's method."""
    x = math.log1p(value)
    for _ in range(100):
        power = math.exp(x + 1)
        x -= (x * power - value) / (power * (x + 1))
    return x
