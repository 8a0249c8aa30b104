"""The plain linear head of the smaller networks: logits = Wx + b, rows as they are trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.head import ExportedHead
from pipeline.layers.records import to_float32


class LinearHead(nn.Module):
    """The head in training; initialised as `torch.nn.Linear` is.

    Args:
        features: d.
        num_classes: K.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        linear = nn.Linear(features, num_classes)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, features: Tensor) -> Tensor:
        """[B, d] -> logits [B, K], at least float32 under autocast too."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.to(self.weight.dtype), self.weight, self.bias)

    def export(self) -> ExportedHead:
        """The exact head that is certified."""
        return ExportedHead(to_float32(self.weight), to_float32(self.bias))
