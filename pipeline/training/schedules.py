"""What changes during training: the learning rate and the training ε (LiResNet, Appendix B.1; CPL).

Notable: both are pure functions of the step, counted from 0, so that a resumed run needs no state
of them. The paper counts in epochs; a step is a fraction of an epoch here, and t / T is
step / total_steps: at the first step of epoch t the values are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
        total, warmup = (
            training.total_steps(steps_per_epoch),
            training.warmup_epochs * steps_per_epoch,
        )
        if warmup >= total:
            length = f"steps {training.steps}" if training.steps else f"epochs {training.epochs}"
            raise ValueError(
                f"training.warmup_epochs {training.warmup_epochs:g} must be smaller than "
                f"training.{length}"
            )
        return cls(config.optimizer.lr, total, warmup)

    def __call__(self, step: int) -> float:
        """The rate of step `step` in 0 … total_steps − 1."""
        if step + 1 < self.warmup_steps:  # the first step already learns: (step + 1), not step
            return self.peak * (step + 1) / self.warmup_steps
        past = max(step - self.warmup_steps, 0.0) / (self.total_steps - self.warmup_steps)
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(past, 1.0)))


@dataclass(frozen=True)
class TriangularRate:
    """The piecewise triangular schedule of CPL (Section 5.1; Trockman & Kolter 2021).

    Linear from 0 to the peak at 40 % of the training, to a twentieth of it at 80 %, to 0 at the
    end. (The authors' code steps it by epochs from epoch 1 and trains the last one at rate 0; here
    a step takes the rate at its middle, so that every step learns.)
    """

    peak: float
    total_steps: int

    def __call__(self, step: int) -> float:
        """The rate of step `step` in 0 … total_steps − 1."""
        done = (step + 0.5) / self.total_steps
        if done <= 0.4:
            return self.peak * done / 0.4
        if done <= 0.8:
            return self.peak * (1 - 0.95 * (done - 0.4) / 0.4)
        return self.peak * 0.05 * (1 - done) / 0.2


@dataclass(frozen=True)
class ConstantRate:
    """Linear warm-up, then the same to the end (Nichol & Dhariwal 2021)."""

    peak: float
    warmup_steps: float

    def __call__(self, step: int) -> float:
        """The rate of step `step`, counted from 0."""
        return self.peak * min((step + 1) / max(self.warmup_steps, 1.0), 1.0)


def learning_rate_of(config: RunConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """The schedule that `training.schedule` names.

    Raises:
        ValueError: a warm-up that is too long, or that the schedule does not have.
    """
    training = config.training
    if training.schedule == "cosine":
        return LearningRate.of(config, steps_per_epoch)
    if training.schedule == "constant":
        return ConstantRate(config.optimizer.lr, training.warmup_epochs * steps_per_epoch)
    if training.warmup_epochs:
        raise ValueError(
            f"training.warmup_epochs is {training.warmup_epochs:g}, but the triangular schedule is "
            "its own warm-up: leave it out"
        )
    return TriangularRate(config.optimizer.lr, training.total_steps(steps_per_epoch))


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
            config.training.total_steps(steps_per_epoch),
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
