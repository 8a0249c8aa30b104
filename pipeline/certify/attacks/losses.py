"""What the attacks maximise, each [B, K] logits, [B] labels -> [B]."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor], Tensor]
"""[B, K] -> [B]; labels and targets are already bound."""


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """f_y − max of the others: not positive where the label is not strictly first."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (own - others.amax(1, keepdim=True))[:, 0]


def cross_entropy(labels: Tensor) -> Loss:
    """The loss of PGD and APGD-CE."""
    return lambda logits: F.cross_entropy(logits, labels, reduction="none")


def margin_loss(labels: Tensor) -> Loss:
    """The difference that decides (Carlini and Wagner 2017)."""
    return lambda logits: -margins(logits, labels)


def targeted_dlr(labels: Tensor, targets: Tensor) -> Loss:
    """Targeted difference of logits ratio (Croce and Hein 2020, equation 7).

    −(z_y − z_t)/(z_π1 − (z_π3 + z_π4)/2); with fewer than four classes, which that needs, the
    difference alone.
    """

    def loss(logits: Tensor) -> Tensor:
        gap = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
        if logits.shape[1] < 4:
            return gap
        ordered = logits.sort(dim=1).values
        scale = ordered[:, -1] - (ordered[:, -3] + ordered[:, -4]) / 2
        return gap / (scale + 1e-12)

    return loss
