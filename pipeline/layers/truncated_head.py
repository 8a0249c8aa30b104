"""Truncation: the first K features are the logits (CPL, Section 4.2, "Reducing dimensionality").

Notable: as a linear map it is the first K rows of the identity, so every margin f_j − f_i has the
constant √2, and it is exported as just those rows: nothing downstream needs to know of it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.layers.head import ExportedHead, Head


class TruncatedHead(Head):
    """The head without weights.

    Args:
        features: d, at least K.
        num_classes: K.

    Raises:
        ValueError: more classes than features.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        if num_classes > features:
            raise ValueError(
                f"model.num_classes is {num_classes}, but only {features} features reach the head, "
                "and truncation makes none: take more channels, or model.head normalized"
            )
        self.features, self.num_classes = features, num_classes

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[B, d] -> logits [B, K], and √2 between any two rows [K, K]."""
        logits = features[:, : self.num_classes]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        apart = 1 - torch.eye(self.num_classes, dtype=logits.dtype, device=logits.device)
        return logits, math.sqrt(2) * apart

    def export(self) -> ExportedHead:
        """The first K rows of the identity, without bias."""
        rows = np.eye(self.num_classes, self.features, dtype=np.float32)
        return ExportedHead(rows, np.zeros(self.num_classes, np.float32))
