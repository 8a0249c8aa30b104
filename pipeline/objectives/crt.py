"""CRT, curvature-based robust training (Singla & Feizi 2020, Section 6, equation 7).

    CE(x_attack, y) + γ·K(W, y, t)

x_attack the least margin f_y − f_t in the ball of radius ρ about x (Algorithm 2), t the class with
the second-largest logit, K the curvature bound of Theorem 4. ρ is the training ε. With `attack:
false` the loss is at x itself: "γ" of the paper's tables, curvature regularisation alone.

Notable:
- The inner problem by `worst_point`, ten gradients in place of 600. The limit of its multiplier is
  the concavity −m that a model estimates, or K for want of one. While that is too large for the
  sphere the attack stays inside the ball, so that a network first learns to classify.
- Clean accuracy and `robust` are those of the images themselves; `robust` rests on the product of
  the layers' norms, far below what CRC certifies.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.lipschitz.curvature_search import Margin, worst_point
from pipeline.lipschitz.logits_only import logits_only, without_concavity
from pipeline.objectives.base import Losses, judged, threatening_class
from pipeline.options import require_count, require_flag, require_number
from pipeline.types import Batch, Prediction


class CurvatureTraining:
    """The CRT loss; the model must put curvature into its predictions (`mlp` does).

    Args:
        gamma: γ; 0.01 to 0.07 in the paper.
        steps: gradients of the inner problem.
        attack: whether there is one.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(self, gamma: float = 0.01, steps: int = 10, attack: bool = True) -> None:
        require_number("objective.gamma", gamma, least=0)
        require_count("objective.steps", steps)
        require_flag("objective.attack", attack)
        self.gamma, self.steps, self.attack = gamma, steps, attack

    def __call__(
        self, model: Callable[[Tensor], Prediction], batch: Batch, epsilon: float
    ) -> Losses:
        """Equation 7 per sample.

        Raises:
            ValueError: the model gives no curvature.
        """
        with nullcontext() if self.attack else without_concavity():
            clean = model(batch.images)  # and the estimates of this step
        if clean.curvature is None:
            raise ValueError(
                "objective crt needs a model that bounds its curvature: take mlp with "
                "model.curvature true"
            )
        target = threatening_class(_others_first(clean.logits, batch.labels))
        curvature = clean.curvature[batch.labels, target]
        hit = clean.logits
        if self.attack and epsilon > 0:
            margin = margin_of(model, batch.labels, target, batch.images.shape)
            x0 = batch.images.flatten(1)
            limits = clean.curvature.detach() if clean.concavity is None else clean.concavity
            limit = limits[batch.labels, target]
            attacked = worst_point(margin, x0, epsilon, limit, self.steps)
            with logits_only():
                hit = model(attacked.view_as(batch.images)).logits
        per_sample = F.cross_entropy(hit, batch.labels, reduction="none")
        if self.gamma:  # without, K may be too large for float32
            per_sample = per_sample + self.gamma * curvature
        return judged(per_sample, clean, batch.labels, epsilon)


def margin_of(
    model: Callable[[Tensor], Prediction], labels: Tensor, target: Tensor, shape: torch.Size
) -> Margin:
    """F_y − f_t of each sample as a function of the flattened images, by automatic gradients."""

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), logits_only():
            x = x.detach().requires_grad_()
            logits = model(x.view(shape)).logits
            margins = (logits.gather(1, labels[:, None]) - logits.gather(1, target[:, None]))[:, 0]
            gradient = torch.autograd.grad(margins.sum(), x)[0]
        return margins.detach(), gradient

    return evaluate


def _others_first(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits with the label's on top, so that the second is the largest other."""
    return logits.scatter(1, labels[:, None], torch.inf)
