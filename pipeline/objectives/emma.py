"""EMMA, Efficient Margin MAXimization (LiResNet, Section 4, Definition 3).

Notable:
- Every class is pushed away from the label at once, each by as much of ε as it has already earned:
  ε̃_i is the radius at which the label is ahead of class i now, between 0 and ε, held constant. A
  class that is ahead of the label gets 0: there the loss is plain cross entropy.
- K_yi is looked up row by row in the model's [K, K] table; the gradient reaches the network's
  steepness and the head's rows through it, and through ε̃ it goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.objectives.base import Losses, judged, label_margins
from pipeline.options import require_number
from pipeline.types import Batch, Prediction


class Emma:
    """The EMMA loss.

    Args:
        floor: least share of ε that is added to every class. 0 is the paper's definition; the
            authors' later code has 0.01.

    Raises:
        ValueError: `floor` outside [0, 1].
    """

    def __init__(self, floor: float = 0.0) -> None:
        require_number("objective.floor", floor, least=0, most=1)
        self.floor = floor

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """Cross entropy of the logits f_i + ε̃_i·K_yi, per sample."""
        prediction = model(batch.images)
        logits, labels = prediction.logits, batch.labels
        lipschitz = prediction.margin_lipschitz[labels]  # [B, K]
        radii = earned_radii(logits, labels, lipschitz).clamp(self.floor * epsilon, epsilon)
        per_sample = F.cross_entropy(logits + radii * lipschitz, labels, reduction="none")
        return judged(per_sample, prediction, labels, epsilon)


@torch.no_grad()
def earned_radii(logits: Tensor, labels: Tensor, lipschitz: Tensor) -> Tensor:
    """κ_i = (f_y − f_i)/K_yi, and 0 where K_yi = 0, as at i = y (equation 2): [B, K].

    Args:
        logits: [B, K].
        labels: [B].
        lipschitz: [B, K], rows K_y of the table.
    """
    steep = lipschitz > 0
    return torch.where(steep, label_margins(logits, labels) / lipschitz, 0.0)
