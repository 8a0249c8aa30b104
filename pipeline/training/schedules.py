"""What changes during training: the learning rate and the training ε (LiResNet, Appendix B.1).

Notable: both are pure functions of the step, counted from 0, so that a resumed run needs no state
of them. The paper counts in epochs; a step is a fraction of an epoch here, and t / T is
step / total_steps: at the first step of epoch t the values are the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.types import Epsilon


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017)."""

    peak: float
    """The learning rate where the warm-up ends."""
    total_steps: int
    """T; the rate reaches zero after the last step, so that every step still learns."""
    warmup_steps: float
    """Steps of warm-up; may be a fraction, since it is given in epochs."""

    @classmethod
    def of(cls, config: RunConfig, steps_per_epoch: int) -> LearningRate:
        """The schedule of a run.

        Raises:
            ValueError: the warm-up is not shorter than the training.
        """
        training = config.training
        if training.warmup_epochs >= training.epochs:
            raise ValueError(
                f"training.warmup_epochs {training.warmup_epochs:g} must be smaller than "
                f"training.epochs {training.epochs}"
            )
        return cls(
            config.optimizer.lr,
            training.epochs * steps_per_epoch,
            training.warmup_epochs * steps_per_epoch,
        )

    def __call__(self, step: int) -> float:
        """The rate of step `step` in 0 … total_steps − 1."""
        if step + 1 < self.warmup_steps:  # the first step already learns: (step + 1), not step
            return self.peak * (step + 1) / self.warmup_steps
        past = max(step - self.warmup_steps, 0.0) / (self.total_steps - self.warmup_steps)
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(past, 1.0)))


@dataclass(frozen=True)
class EpsilonRamp:
    """The training radius: from `start`·ε linearly to `end`·ε, then flat (Appendix B.1).

    With the defaults of `EpsilonConfig` it is the paper's
    ε_train(t) = (min(2 t / T, 1) · 1.9 + 0.1) · ε.
    """

    target: float
    """ε, the radius to be certified; an l2 norm in stored-image space."""
    start: float
    """Factor on ε at step 0."""
    end: float
    """Factor on ε from the end of the ramp on."""
    ramp: float
    """Share of the training over which the factor grows; 0 begins at `end`."""
    total_steps: int
    delay: float = 0.0
    """Share of the training before the ramp, in which ε_train is 0."""

    @classmethod
    def of(cls, config: RunConfig, steps_per_epoch: int) -> EpsilonRamp:
        """The schedule of a run."""
        ramp = config.epsilon
        return cls(
            float(Epsilon.parse(ramp.target)),
            ramp.start,
            ramp.end,
            ramp.ramp,
            config.training.epochs * steps_per_epoch,
            ramp.delay,
        )

    def __call__(self, step: int) -> float:
        """ε_train of step `step` in 0 … total_steps − 1."""
        if step < self.delay * self.total_steps:
            return 0.0
        step -= math.ceil(self.delay * self.total_steps)
        ramp_steps = self.ramp * self.total_steps
        grown = min(step / ramp_steps, 1.0) if ramp_steps > 0 else 1.0
        return (self.start + grown * (self.end - self.start)) * self.target
