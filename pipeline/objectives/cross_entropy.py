"""Cross entropy: the baseline that asks for no robustness."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from pipeline.objectives.base import Losses, judged
from pipeline.types import Batch, Prediction


class CrossEntropy:
    """−log softmax of the label; `epsilon` matters to the metrics only."""

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """Cross entropy per sample."""
        prediction = model(batch.images)
        per_sample = F.cross_entropy(prediction.logits, batch.labels, reduction="none")
        return judged(per_sample, prediction, batch.labels, epsilon)
