"""What an objective is, and the per-sample numbers that every objective reports.

Notable:
- Losses are per sample: reduction, and the split into real and generated, is the loop's.
- `robust` is measured on the model's own logits at the true label. (The share of samples that the
  *adapted* logits of a robust loss get right is no certified accuracy.) It rests on training
  estimates, so it is no certificate either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pipeline.types import Batch, Prediction


@dataclass(frozen=True)
class Losses:
    """What an objective says of a batch."""

    per_sample: Tensor
    """[B] float32, differentiable."""
    metrics: dict[str, Tensor]
    """Each [B] float32 without gradient; their means are meaningful."""
    prediction: Prediction | None = None
    """None where no classifier was asked."""
    threatening: Tensor | None = None
    """[B] int64, the class with the second-highest logit (LiResNet, Figure 2b)."""


class Objective(Protocol):
    """A loss with its metrics. Most look at the prediction only; some call the model again."""

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """Evaluate `model` on `batch` at the radius `epsilon` of this step."""


@runtime_checkable
class Stepwise(Protocol):
    """An objective that draws random numbers: the loop tells it which step begins."""

    def begin_step(self, step: int) -> None:
        """From here on, step number `step`, counted from 0."""


def measure(prediction: Prediction, labels: Tensor, epsilon: float) -> dict[str, Tensor]:
    """The metrics of every objective; each [B] float32.

    - `correct`: 1 where the label's logit is strictly the largest.
    - `margin`: the label's logit less the largest other.
    - `robust`: 1 where f_y − f_i > ε·K_yi for every other class i, with estimated K.

    Args:
        prediction: of the batch.
        labels: [B] int64.
        epsilon: the l2 radius of `robust`.
    """
    with torch.no_grad():
        margins = label_margins(prediction.logits, labels)  # [B, K]
        needed = epsilon * prediction.margin_lipschitz[labels]
        others = torch.ones_like(margins, dtype=torch.bool).scatter_(1, labels[:, None], False)
        margin = margins.masked_fill(~others, torch.inf).amin(1)
        return {
            "correct": (margin > 0).float(),
            "margin": margin,
            "robust": ((margins > needed) | ~others).all(1).float(),
        }


def label_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """f_y − f_i for every class i, 0 at i = y: [B, K], [B] -> [B, K]."""
    return logits.gather(1, labels[:, None]) - logits


def threatening_class(logits: Tensor) -> Tensor:
    """The class with the second-highest logit: [B, K] -> [B] int64."""
    return logits.detach().topk(2, dim=1).indices[:, 1]


def judged(per_sample: Tensor, prediction: Prediction, labels: Tensor, epsilon: float) -> Losses:
    """`Losses` with the common metrics."""
    return Losses(
        per_sample,
        measure(prediction, labels, epsilon),
        prediction,
        threatening_class(prediction.logits),
    )
