"""GloRo training (Leino et al. 2021), as LiResNet's Section 5.2 compares it with EMMA.

    f_⊥ = max over i ≠ j of f_i + ε·K_ji,  j the predicted class   (equation 1)

Notable:
- Only the nearest rival of the prediction is pushed away in a step, whatever the label; that is
  what EMMA improves on.
- The TRADES form adds λ·KL(softmax(f) ‖ softmax(f, f_⊥)), the clean distribution having no weight
  on ⊥. It equals λ·(LSE(f, f_⊥) − LSE(f)), which is computed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.objectives.base import Losses, judged
from pipeline.options import require_number
from pipeline.types import Batch, Prediction


def bottom_logit(prediction: Prediction, epsilon: float) -> Tensor:
    """f_⊥ of equation 1: [B]."""
    logits = prediction.logits
    predicted = logits.detach().argmax(1)
    raised = logits + epsilon * prediction.margin_lipschitz[predicted]  # [B, K]
    own = F.one_hot(predicted, logits.shape[1]).bool()
    return raised.masked_fill(own, -torch.inf).amax(1)


class GloroCrossEntropy:
    """Cross entropy over the K classes and ⊥, which is never the label."""

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """The loss per sample."""
        prediction = model(batch.images)
        extended = torch.cat([prediction.logits, bottom_logit(prediction, epsilon)[:, None]], 1)
        per_sample = F.cross_entropy(extended, batch.labels, reduction="none")
        return judged(per_sample, prediction, batch.labels, epsilon)


class GloroTrades:
    """Cross entropy plus λ times the divergence that ⊥ causes.

    Args:
        weight: λ.

    Raises:
        ValueError: `weight` is not a positive number.
    """

    def __init__(self, weight: float = 1.0) -> None:
        require_number("objective.weight", weight, above=0)
        self.weight = float(weight)

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """The loss per sample."""
        prediction = model(batch.images)
        clean = torch.logsumexp(prediction.logits, 1)
        with_bottom = torch.logaddexp(clean, bottom_logit(prediction, epsilon))
        correct = F.cross_entropy(prediction.logits, batch.labels, reduction="none")
        per_sample = correct + self.weight * (with_bottom - clean)
        return judged(per_sample, prediction, batch.labels, epsilon)
