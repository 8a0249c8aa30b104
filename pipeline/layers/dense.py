"""Dense: y = Wx + b, in training and as certified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import require_shape, tensor, to_float32
from pipeline.lipschitz.abs_norms import bias_norm_upper, dense_abs_norm_upper
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.dense import dense_norm_bound
from pipeline.lipschitz.power_iteration import NormRequest, start_vector


@dataclass(frozen=True)
class ExportedDense(ExportedLayer):
    """A dense layer as certified.

    Raises:
        ValueError: weight, bias and input shape do not fit each other.
    """

    kind: ClassVar[str] = "dense"

    weight: np.ndarray = field(metadata=tensor(ndim=2))
    """[O, I] float32."""
    bias: np.ndarray = field(metadata=tensor(ndim=1))
    """[O] float32."""

    def __post_init__(self) -> None:
        require_shape(f"input of {self.name}", self.input_shape, self.weight.shape[1:])
        require_shape(f"{self.name}.bias", self.bias.shape, self.weight.shape[:1])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[O]."""
        return self.weight.shape[:1]

    def forward(self, x: Tensor) -> Tensor:
        """[B, I] -> [B, O], float64."""
        weight = torch.from_numpy(self.weight).to(x)
        return x @ weight.T + torch.from_numpy(self.bias).to(x)

    def norm_bound(self) -> NormBound:
        """Proved upper bound of the largest singular value of W."""
        return dense_norm_bound(self.weight)

    def rounding(self) -> Rounding:
        """Fan-in I."""
        return Rounding(
            fan_in=self.weight.shape[1],
            abs_norm=dense_abs_norm_upper(self.weight),
            bias_norm=bias_norm_upper(self.bias, 1),
        )


class Dense(LipschitzLayer):
    """A dense layer in training: [B, I] -> [B, O], orthogonal at the start (norm 1)."""

    vector: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("vector", start_vector((inputs,)))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I] -> [B, O]."""
        return F.linear(x, self.weight, self.bias)

    def norm_request(self) -> NormRequest | None:
        """The matrix itself."""
        return NormRequest(self.weight, self.vector)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return [ExportedDense(name, input_shape, to_float32(self.weight), to_float32(self.bias))]
