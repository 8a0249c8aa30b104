"""The classification head with last-layer normalisation (LLN; Singla et al. 2022), and its margins.

Notable:
- Rows are scaled to norm 1, so logits are distances to hyperplanes. The head is *not* 1-Lipschitz:
  the margin f_j − f_i has the constant ‖w_j − w_i‖ (LiResNet equation 1), up to 2.
- Logits and distances leave one forward: under ZeRO-3 the weight is empty outside it.
- float32 under autocast too: bf16 logits are coarser than the ε·K that training adds to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.records import read_tensor, require_shape, to_float32

WEIGHT, BIAS = "head.weight", "head.bias"


@dataclass(frozen=True)
class ExportedHead:
    """The head as certified: rows normalised in float64, rounded once to float32.

    Raises:
        ValueError: weight and bias do not fit each other, or there are fewer than two classes.
    """

    weight: np.ndarray
    """[K, d] float32."""
    bias: np.ndarray
    """[K] float32."""

    def __post_init__(self) -> None:
        require_shape(BIAS, self.bias.shape, self.weight.shape[:1])
        if self.num_classes < 2:
            raise ValueError(f"{WEIGHT!r} has {self.num_classes} rows, expected at least 2 classes")

    @property
    def num_classes(self) -> int:
        """K."""
        return self.weight.shape[0]

    @property
    def features(self) -> int:
        """D, the length of the vectors that it takes."""
        return self.weight.shape[1]

    def logits(self, features: Tensor) -> Tensor:
        """[B, d] -> [B, K], float64."""
        weight = torch.from_numpy(self.weight).to(features)
        return features @ weight.T + torch.from_numpy(self.bias).to(features)

    def tensors(self) -> dict[str, np.ndarray]:
        """`head.weight` and `head.bias`."""
        return {WEIGHT: self.weight, BIAS: self.bias}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> ExportedHead:
        """Read back what `tensors` wrote.

        Raises:
            ValueError: a tensor is missing or of the wrong kind or shape.
        """
        return cls(read_tensor(tensors, WEIGHT, ndim=2), read_tensor(tensors, BIAS, ndim=1))


class Head(nn.Module, ABC):
    """A head in training: from features to logits, and how far apart its rows are."""

    @abstractmethod
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[B, d] -> logits [B, K] and the distances between rows [K, K], both at least float32."""

    @abstractmethod
    def export(self) -> ExportedHead:
        """The exact head that is certified."""


class NormalizedHead(Head):
    """The head in training.

    Args:
        features: d.
        num_classes: K.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, features))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.normal_(self.weight)  # directions uniform on the sphere

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[B, d] -> logits [B, K] and the distances between rows [K, K], both at least float32."""
        with torch.autocast(features.device.type, enabled=False):
            rows = F.normalize(self.weight, dim=1)
            return F.linear(features.to(rows.dtype), rows, self.bias), row_distances(rows)

    def export(self) -> ExportedHead:
        """The exact head that is certified."""
        rows = F.normalize(self.weight.detach().double(), dim=1)
        return ExportedHead(to_float32(rows), to_float32(self.bias))


def row_distances(rows: Tensor) -> Tensor:
    """‖w_j − w_i‖ for all pairs of rows: [K, d] -> [K, K], differentiable, zero on the diagonal.

    By the Gram matrix: at K = 1000 and d = 4096 the differences themselves are 16 GB. In float64,
    where its cancellation is about 1e-8 for unit rows, and out of reach of TF32. An estimate for
    training; certification uses the difference form, rounded upwards.
    """
    wide = rows.double()
    gram = wide @ wide.T
    squared = gram.diagonal()[:, None] + gram.diagonal()[None, :] - 2 * gram
    # √ has an infinite slope at 0: equal rows (the diagonal) are given a distance and a slope of 0.
    apart = squared > 0
    distances = torch.where(apart, squared, 1.0).sqrt()
    return torch.where(apart, distances, 0.0).to(rows.dtype)
