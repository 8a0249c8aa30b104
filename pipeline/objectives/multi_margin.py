"""The multi-class hinge loss, with which CPL is trained (Section 5.1; margin 0.7).

Notable: it asks every margin f_y − f_i for the same constant and does not look at ε or at Lipschitz
estimates. It suits networks whose constant is fixed by construction, and those only: any other
reaches the margin by growing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from pipeline.objectives.base import Losses, judged
from pipeline.options import require_number
from pipeline.types import Batch, Prediction


class MultiMargin:
    """Σ over i ≠ y of max(0, margin − (f_y − f_i)), divided by the number of classes.

    Args:
        margin: asked for; the paper's 0.7 serves logits whose margins have the constant √2.

    Raises:
        ValueError: `margin` is not a positive number.
    """

    def __init__(self, margin: float = 0.7) -> None:
        require_number("objective.margin", margin, above=0)
        self.margin = float(margin)

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """The loss per sample; `epsilon` matters to the metrics only."""
        prediction = model(batch.images)
        per_sample = F.multi_margin_loss(
            prediction.logits, batch.labels, margin=self.margin, reduction="none"
        )
        return judged(per_sample, prediction, batch.labels, epsilon)
