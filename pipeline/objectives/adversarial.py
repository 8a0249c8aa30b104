"""Adversarial training, the baselines of CRC's Table 14: PGD (Madry et al. 2018) and TRADES (Zhang
et al. 2019).

    PGD      CE(x', y),                        x' maximises CE(·, y) in the ball
    TRADES   CE(x, y) + β·KL(p(x) ‖ p(x')),    x' maximises KL(p(x) ‖ p(·)) in the ball

The ball is of l2 radius ε about the image, not cut to [0, 1]: so are certificates.

Notable: steps of l2 length 2.5·ε/steps along the gradient, projected back; the start is random in
TRADES, whose gradient is zero at the image itself. The noise is drawn from a generator seeded by
the batch's sample ids, so that a step is the same on any number of processes and after any resume.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.lipschitz.logits_only import logits_only
from pipeline.lipschitz.power_iteration import normalized
from pipeline.objectives.base import Losses, judged
from pipeline.options import require_count, require_number
from pipeline.types import Batch, Prediction

Model = Callable[[Tensor], Prediction]
STEP_SHARE = 2.5
"""Steps reach 2.5 radii together, so that a path may turn and still come to the edge."""


class ProjectedGradient:
    """PGD adversarial training.

    Args:
        steps: of the attack.

    Raises:
        ValueError: `steps` is not a whole number of at least 1.
    """

    def __init__(self, steps: int = 10) -> None:
        require_count("objective.steps", steps)
        self.steps = steps

    def __call__(self, model: Model, batch: Batch, epsilon: float) -> Losses:
        """Cross entropy at the attacked images; metrics at the images themselves."""
        with torch.no_grad():
            prediction = model(batch.images)

        def loss(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, batch.labels, reduction="none")

        attacked = attack(model, batch.images, loss, epsilon, self.steps)
        with logits_only():  # the forward above was this step's advance of the power iteration
            per_sample = loss(model(attacked).logits)
        return judged(per_sample, prediction, batch.labels, epsilon)


class Trades:
    """TRADES.

    Args:
        beta: β, weight of the divergence.
        steps: of the attack.

    Raises:
        ValueError: `beta` is not a positive number, or `steps` no whole number of at least 1.
    """

    def __init__(self, beta: float = 6.0, steps: int = 10) -> None:
        require_number("objective.beta", beta, above=0)
        require_count("objective.steps", steps)
        self.beta, self.steps = beta, steps

    def __call__(self, model: Model, batch: Batch, epsilon: float) -> Losses:
        """Cross entropy at the images, and β times the divergence of the attacked ones."""
        with torch.no_grad(), logits_only():
            clean = F.log_softmax(model(batch.images).logits, dim=1)

        def loss(logits: Tensor) -> Tensor:
            return _divergence(clean, logits)

        start = batch.images + nearby(batch, 1e-3)
        attacked = attack(model, batch.images, loss, epsilon, self.steps, start)
        prediction = model(batch.images)
        with logits_only():
            moved = model(attacked).logits
        wide = F.log_softmax(prediction.logits, dim=1)
        per_sample = F.cross_entropy(prediction.logits, batch.labels, reduction="none")
        per_sample = per_sample + self.beta * _divergence(wide, moved)
        return judged(per_sample, prediction, batch.labels, epsilon)


def attack(
    model: Model,
    images: Tensor,
    loss: Callable[[Tensor], Tensor],
    epsilon: float,
    steps: int,
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent of a loss of the logits in l2 balls: [B, C, H, W].

    Args:
        model: gives logits.
        images: centres of the balls.
        loss: of logits [B, K], per sample.
        epsilon: radius; 0 gives the images back.
        steps: gradients.
        start: where to begin; by default at the images.
    """
    if epsilon <= 0:
        return images
    x = images if start is None else start
    for _ in range(steps):
        with torch.enable_grad(), logits_only():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss(model(x).logits).sum(), x)
        x = x.detach() + STEP_SHARE * epsilon / steps * normalized(slope, 0.0)
        away = x - images
        length = torch.linalg.vector_norm(away.flatten(1), dim=1).view(-1, 1, 1, 1)
        x = images + away * (epsilon / length).clamp(max=1)
    return x.detach()


def nearby(batch: Batch, length: float) -> Tensor:
    """A random vector of that length for each image, a function of its sample id alone."""
    noise = torch.stack(
        [
            torch.randn(batch.images.shape[1:], generator=torch.Generator().manual_seed(int(each)))
            for each in batch.sample_ids.tolist()
        ]
    ).to(batch.images)
    return length * normalized(noise, 0.0)


def _divergence(log_p: Tensor, logits: Tensor) -> Tensor:
    """KL(p ‖ softmax(logits)) per sample: [B, K], [B, K] -> [B]."""
    log_q = F.log_softmax(logits, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
