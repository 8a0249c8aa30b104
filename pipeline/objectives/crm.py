"""CRM, Certified Radius Maximization (Fazlyab et al. 2023, equations 5 and 6).

    CE(x, y) + λ·1{correct}·g(R_t(x, y)),   R_t = −(1/t)·log Σ_{i≠y} exp(−t·(z_y − z_i)/L_yi)

with g(R) = −R below the threshold r0 and no term above it: radii that are large enough are left
alone. R_t is a smooth lower bound of the certified radius of equation 4.

Notable:
- It wants pairwise constants L_yi and takes them from the prediction's [K, K] table, so it works
  with every network: LipLT's, and the product bound of LiResNet.
- Both z and L carry gradients: the term widens margins and flattens the network.
- The warm-up, in which plain cross entropy is trained, is `epsilon.delay` of the config: the term
  is off while the training ε is 0, and its size does not matter otherwise.
- The mean of the second term is over the batch, as in equation 6; the authors' code divides by the
  number of samples below the threshold instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.objectives.base import Losses, judged, label_margins
from pipeline.options import require_number
from pipeline.types import Batch, Prediction


class CertifiedRadius:
    """The CRM loss.

    Args:
        weight: λ; 30, 15 and 150 on MNIST, CIFAR-10 and Tiny-ImageNet.
        temperature: t; 5, 5 and 12.
        threshold: r0, the radius above which a sample is left alone; 2.2, 0.2 and 0.2.

    Raises:
        ValueError: an option that is not a positive number (λ may be 0).
    """

    def __init__(
        self, weight: float = 15.0, temperature: float = 5.0, threshold: float = 0.2
    ) -> None:
        require_number("objective.weight", weight, least=0)
        require_number("objective.temperature", temperature, above=0)
        require_number("objective.threshold", threshold, above=0)
        self.weight, self.temperature, self.threshold = weight, temperature, threshold

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """Equation 6 per sample; plain cross entropy where `epsilon` is 0 (the warm-up)."""
        prediction = model(batch.images)
        logits, labels = prediction.logits, batch.labels
        per_sample = F.cross_entropy(logits, labels, reduction="none")
        if epsilon > 0:
            lipschitz = prediction.margin_lipschitz[labels]
            radius = soft_radius(logits, labels, lipschitz, self.temperature)
            with torch.no_grad():
                hard = soft_radius(logits, labels, lipschitz, math.inf)
                counts = (hard > 0) & (radius < self.threshold)
            per_sample = per_sample - self.weight * torch.where(counts, radius, 0.0)
        return judged(per_sample, prediction, labels, epsilon)


def soft_radius(logits: Tensor, labels: Tensor, lipschitz: Tensor, temperature: float) -> Tensor:
    """R_t of equation 5, and R of equation 4 at an infinite temperature: [B].

    Args:
        logits: [B, K].
        labels: [B].
        lipschitz: [B, K], rows L_y of the table.
        temperature: t.
    """
    others = torch.ones_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], False)
    # The label's own entry is 0/0: another denominator, and then it is left out.
    radii = label_margins(logits, labels) / torch.where(others, lipschitz, 1.0)
    radii = torch.where(others, radii, torch.inf)
    if math.isinf(temperature):
        return radii.amin(1)
    return -torch.logsumexp(-temperature * radii, dim=1) / temperature
