"""Losses that add the whole of ε to every margin: fixed margin and LMT (LiResNet, Appendix A).

Notable:
- Both are cross entropy of raised logits, as EMMA is; but they ask for all of ε before the network
  has learned to be right, where EMMA asks for what is earned.
- LMT (Tsuzuku et al. 2018) knows one constant for all margins, √2·K with K that of the logits as a
  map. Logits may be shifted together without changing a loss or a margin, so K here is that of the
  centred logits. It is found from the table of margin constants: the centred Gram matrix of the
  head's rows is −½·J·D²·J, J the centring matrix, and K² its largest eigenvalue.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.objectives.base import Losses, judged
from pipeline.types import Batch, Prediction


class FixedMargin:
    """Cross entropy of f_i + ε·K_yi (Appendix A, ℓ_fixed)."""

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """The loss per sample."""
        prediction = model(batch.images)
        raised = prediction.logits + epsilon * prediction.margin_lipschitz[batch.labels]
        per_sample = F.cross_entropy(raised, batch.labels, reduction="none")
        return judged(per_sample, prediction, batch.labels, epsilon)


class LipschitzMargin:
    """Lipschitz-margin training: cross entropy of f_i + √2·ε·K for all i ≠ y (Appendix A)."""

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """The loss per sample."""
        prediction = model(batch.images)
        others = 1 - F.one_hot(batch.labels, prediction.logits.shape[1]).to(prediction.logits)
        raise_by = math.sqrt(2) * epsilon * global_lipschitz(prediction.margin_lipschitz)
        raised = prediction.logits + raise_by * others
        per_sample = F.cross_entropy(raised, batch.labels, reduction="none")
        return judged(per_sample, prediction, batch.labels, epsilon)


def global_lipschitz(margin_lipschitz: Tensor) -> Tensor:
    """K of the centred logits, from the table of margin constants: [K, K] -> scalar."""
    squares = margin_lipschitz.double().square()
    centred = squares - squares.mean(0, keepdim=True)
    centred = centred - centred.mean(1, keepdim=True)
    largest = torch.linalg.eigvalsh(-0.5 * centred)[-1]
    return largest.clamp(min=0).sqrt().to(margin_lipschitz.dtype)
