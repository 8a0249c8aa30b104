"""Cross entropy at images with Gaussian noise: how base classifiers of randomized smoothing are
trained (Cohen et al. 2019, Section 3.3).

Notable: the noise of a sample is a function of (step, sample id), so a step is the same on any
number of processes and after any resume. The step comes from the loop (`begin_step`).
NumPy's Philox takes both as its key; torch's generator on the CPU looks at 32 bits of a seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.objectives.base import Losses, judged
from pipeline.options import require_number
from pipeline.types import Batch, Prediction


class GaussianNoise:
    """−log softmax of the label at x + N(0, σ²I).

    Args:
        sigma: σ, in the space of the stored image (values v/255); not clipped to it.

    Raises:
        ValueError: `sigma` is not a positive number.
    """

    def __init__(self, sigma: float) -> None:
        require_number("objective.sigma", sigma, above=0)
        self.sigma = float(sigma)
        self._step = 0

    def begin_step(self, step: int) -> None:
        """Draw other noise from here on, that of step number `step`."""
        self._step = step

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """Cross entropy per sample; loss and metrics are both of the noisy images."""
        noise = torch.stack([self._noise(int(each), batch) for each in batch.sample_ids.tolist()])
        prediction = model(batch.images + self.sigma * noise.to(batch.images))
        per_sample = F.cross_entropy(prediction.logits, batch.labels, reduction="none")
        return judged(per_sample, prediction, batch.labels, epsilon)

    def _noise(self, sample_id: int, batch: Batch) -> Tensor:
        generator = np.random.Generator(np.random.Philox(key=[self._step, sample_id]))
        return torch.from_numpy(generator.standard_normal(batch.images.shape[1:], dtype=np.float32))
