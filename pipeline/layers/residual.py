"""x + β·Conv(MinMax(Conv(x))): the conventional residual block, and the FFN of a transformer.

Notable:
- Its constant is only bounded by 1 + ‖W₁‖·‖βW₂‖, which is tight if the branch happens to point
  where the skip does. This looseness is what LiResNet's linear block avoids (Section 3).
- β is a multiplier per channel, 0 at the start (Appendix D), and folded into the second kernel.
- With kernels of one pixel it is the feed-forward block of a transformer (Appendix I).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.base import CompositeLayer
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.minmax import minmax
from pipeline.layers.records import by_hand, read_tensor, require_shape, to_float32
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.power_iteration import NormRequest, start_vector
from pipeline.lipschitz.rounding import add_up, mul_up

PARTS = ("first", "second")


@dataclass(frozen=True)
class ExportedResidual(ExportedLayer):
    """The block as certified: square kernels of odd side that keep the size of the maps.

    Raises:
        ValueError: kernels, biases and input shape do not fit each other.
    """

    kind: ClassVar[str] = "residual"

    weights: tuple[np.ndarray, np.ndarray] = field(metadata=by_hand())
    """[hidden, C, k, k] and [C, hidden, k, k], float32; hidden is even."""
    biases: tuple[np.ndarray, np.ndarray] = field(metadata=by_hand())
    """[hidden] and [C], float32."""

    def __post_init__(self) -> None:
        first, second = self.weights
        sizes = self.input_shape[1:]
        require_shape(f"input of {self.name}", self.input_shape, (first.shape[1], *sizes))
        require_shape(f"{self.name}.second.weight", second.shape[:2], first.shape[1::-1])
        for part, weight, bias in zip(PARTS, self.weights, self.biases, strict=True):
            require_shape(f"{self.name}.{part}.bias", bias.shape, weight.shape[:1])
            if weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
                raise ValueError(
                    f"layer {self.name!r}: its {part} kernel is not of odd, equal side"
                )
        if len(first) % 2:
            raise ValueError(f"layer {self.name!r}: MinMax pairs channels, and {len(first)} is odd")

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape, float64."""
        first, second = self.convolutions()
        return x + second.forward(minmax(first.forward(x)))

    def convolutions(self) -> list[ExportedConv2d]:
        """The two of the branch, as layers of their own."""
        return [
            ExportedConv2d(
                f"{self.name}.{part}",
                (weight.shape[1], *self.input_shape[1:]),
                weight,
                bias,
                stride=1,
                padding=weight.shape[2] // 2,
            )
            for part, weight, bias in zip(PARTS, self.weights, self.biases, strict=True)
        ]

    def norm_bound(self) -> NormBound:
        """1 + U₁·U₂, rounded up."""
        return self._bound([each.norm_bound() for each in self.convolutions()])

    def tight_norm_bound(self) -> NormBound:
        """The same from tighter norms of both kernels; what makes it loose is the sum itself."""
        return self._bound([each.tight_norm_bound() for each in self.convolutions()])

    def _bound(self, norms: Sequence[NormBound]) -> NormBound:
        value = add_up(1.0, mul_up(norms[0].value, norms[1].value))
        if not math.isfinite(value):
            return NormBound(math.inf, "none", {"reason": "the norm of a kernel is not finite"})
        evidence: dict[str, Any] = {
            "norms": [norm.value for norm in norms],
            "parts": [norm.evidence for norm in norms],
        }
        return NormBound(value, f"residual-{norms[0].method}", evidence)

    def rounding(self) -> Rounding:
        """As of the matrix I + |W₂||W₁| with the bias |W₂||b₁| + |b₂| (docs/certificate.md §5)."""
        first, second = (each.rounding() for each in self.convolutions())
        outer = max(1.0, second.abs_norm)
        return Rounding(
            fan_in=first.fan_in + second.fan_in + 2,
            abs_norm=add_up(1.0, mul_up(first.abs_norm, second.abs_norm)),
            bias_norm=add_up(mul_up(second.abs_norm, first.bias_norm), second.bias_norm),
            inner_norm=mul_up(outer, first.abs_norm),  # the branch, before a small second kernel
            inner_bias=mul_up(outer, first.bias_norm),
        )

    def tensors(self) -> dict[str, np.ndarray]:
        """`first.weight`, `first.bias`, `second.weight`, `second.bias`."""
        first, second = self.convolutions()
        return first.tensors() | second.tensors()

    @classmethod
    def from_record(
        cls,
        name: str,
        input_shape: tuple[int, ...],
        attributes: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray],
    ) -> ExportedResidual:
        """Read the tensors.

        Raises:
            ValueError: one is missing or of the wrong kind or shape.
        """
        weights, biases = (
            tuple(read_tensor(tensors, f"{name}.{part}.{what}", ndim) for part in PARTS)
            for what, ndim in (("weight", 4), ("bias", 1))
        )
        return cls(name, input_shape, (weights[0], weights[1]), (biases[0], biases[1]))


class Residual(CompositeLayer):
    """The block in training.

    Args:
        width: channels in and out.
        hidden: channels of the branch; even.
        kernel_size: of both convolutions; odd.
        input_size: H = W of the maps, or (H, W).
    """

    first_vector: Tensor
    second_vector: Tensor

    def __init__(
        self, width: int, hidden: int, kernel_size: int, input_size: int | tuple[int, int]
    ) -> None:
        super().__init__()
        sizes = (input_size, input_size) if isinstance(input_size, int) else input_size
        self.padding = kernel_size // 2
        self.first_weight = nn.Parameter(torch.empty(hidden, width, kernel_size, kernel_size))
        self.first_bias = nn.Parameter(torch.zeros(hidden))
        self.second_weight = nn.Parameter(torch.empty(width, hidden, kernel_size, kernel_size))
        self.second_bias = nn.Parameter(torch.zeros(width))
        self.beta = nn.Parameter(torch.zeros(width))
        self.register_buffer("first_vector", start_vector((width, *sizes)))
        self.register_buffer("second_vector", start_vector((hidden, *sizes)))
        nn.init.orthogonal_(self.first_weight)
        nn.init.orthogonal_(self.second_weight)

    def scaled(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """β·W₂ and β·b₂, computed in `dtype` (default: the weight's)."""
        beta = self.beta.to(dtype or self.beta.dtype)
        return beta.view(-1, 1, 1, 1) * self.second_weight.to(beta), beta * self.second_bias.to(
            beta
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, H, W] -> the same shape."""
        weight, bias = self.scaled()
        hidden = minmax(F.conv2d(x, self.first_weight, self.first_bias, padding=self.padding))
        return x + F.conv2d(hidden, weight, bias, padding=self.padding)

    def norm_requests(self) -> list[NormRequest]:
        """Both kernels, β in the second."""
        return [
            NormRequest(self.first_weight, self.first_vector, padding=self.padding),
            NormRequest(self.scaled()[0], self.second_vector, padding=self.padding),
        ]

    def lipschitz(self, norms: list[Tensor]) -> Tensor:
        """1 + ‖W₁‖·‖βW₂‖."""
        return 1 + norms[0] * norms[1]

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        weight, bias = self.scaled(torch.float64)
        weights = (to_float32(self.first_weight), to_float32(weight))
        return [
            ExportedResidual(
                name, input_shape, weights, (to_float32(self.first_bias), to_float32(bias))
            )
        ]
