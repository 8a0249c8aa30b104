"""The training loop: a model behind an engine, an objective, a loader, schedules and callbacks.

Notable:
- A position in the run is one number, the count of finished steps; epoch and step in the epoch,
  learning rate and ε follow from it. Nothing in a step draws random numbers (order and
  augmentation are functions of seed, epoch and sample id), so that is all a resume needs to know.
- The loss is the mean over the *global* batch: every rank and micro-batch has an equal part of it,
  and the engine averages over ranks. 1, 2 or 64 processes make the same steps, up to rounding.
- Where a batch has real and generated images, the numbers of the two are kept apart besides.
- A loss or gradient that is not finite ends the run before the update, on all ranks at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.base import TrainLoader
from pipeline.data.mixing import check_batch_size
from pipeline.distributed import sum_over_ranks
from pipeline.objectives.base import Losses, Objective, Stepwise
from pipeline.stopwatch import Stopwatch, mark
from pipeline.training.callbacks import Callback, EpochRecord, StepRecord
from pipeline.training.engine import Engine
from pipeline.training.feed import on_device
from pipeline.training.guards import NonFiniteError, explain
from pipeline.types import Batch, Prediction


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know of a run's length and steps."""

    epochs: int
    batch_size: int
    """Of the global batch."""
    accumulation: int
    """Micro-batches a step and rank."""
    learning_rate: Callable[[int], float]
    """Of a step, counted from 0."""
    epsilon: Callable[[int], float]
    """Training ε of a step, counted from 0."""
    clip_norm: float | None = None
    steps: int = 0
    """Length in steps, which may end within an epoch; 0 for `epochs`."""
    max_steps: int | None = None
    """Leave after this many steps of the run; the schedules are those of the whole run."""
    generated: int = 0
    """Images of the global batch that are generated."""


class Loop:
    """Trains from a position to the end.

    Args:
        engine: holds the model.
        objective: gives per-sample losses.
        loader: this rank's share of every global batch.
        plan: length and schedules.
        callbacks: called in this order.
        wants_to_stop: asked after every step; if any rank says yes all leave after that step.
    """

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        loader: TrainLoader,
        plan: Plan,
        callbacks: Sequence[Callback] = (),
        wants_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        check_batch_size(plan.batch_size, engine.world.size, plan.accumulation)
        self.engine = engine
        self.objective = objective
        self.loader = loader
        self.plan = plan
        self.callbacks = list(callbacks)
        self.wants_to_stop = wants_to_stop
        self.total_steps = plan.steps or plan.epochs * loader.steps_per_epoch

    def run(self, step: int = 0) -> int:
        """Train on after `step` finished steps.

        Returns:
            Finished steps; `total_steps` unless the run was left early.

        Raises:
            NonFiniteError: a loss or gradient was not finite; the weights are those before it.
        """
        watch = Stopwatch(self.engine.device)
        try:
            with watch.running(), _gradients_marked(self.engine):
                return self._run(step, watch)
        finally:
            for callback in self.callbacks:
                callback.on_end()

    def _run(self, step: int, watch: Stopwatch) -> int:
        """See `run`."""
        for callback in self.callbacks:
            callback.on_start(step)
        leaves = step >= min(self.total_steps, self.plan.max_steps or self.total_steps)
        while not leaves:
            epoch, start = divmod(step, self.loader.steps_per_epoch)
            batches = on_device(self.loader.epoch(epoch, start), self.engine.device)
            for batch in watch.each("data", batches):
                record = self._step(batch, step, watch)
                step, leaves = record.step, record.leaves
                for callback in self.callbacks:
                    callback.on_step_end(record)
                if leaves:
                    break
            if record.ends_epoch:
                ended = EpochRecord(step, epoch, last=step == self.total_steps)
                for callback in self.callbacks:
                    callback.on_epoch_end(ended)
        return step

    def _step(self, batch: Batch, step: int, watch: Stopwatch) -> StepRecord:
        """Step number `step`, counted from 0: forward, backward, guard, update."""
        engine, plan = self.engine, self.plan
        learning_rate, epsilon = plan.learning_rate(step), plan.epsilon(step)
        micro_batches = batch.split(plan.accumulation)
        engine.module.train()
        if isinstance(self.objective, Stepwise):
            self.objective.begin_step(step)
        parts = []
        for number, micro in enumerate(micro_batches):
            # One advance of the power iteration a step, however the batch is cut.
            engine.hold_power_iteration(number > 0)
            with engine.micro_batch(last=number == plan.accumulation - 1):
                with watch.part("forward"):
                    losses = self.objective(engine.forward, micro, epsilon)
                with watch.part("backward"):
                    engine.backward(losses.per_sample.sum() / len(batch))
                    if engine.world.size > 1:
                        # Behind the last gradient nothing is left but to wait for other ranks'.
                        watch.since_mark("communication")
            parts.append(_sums(losses, micro.is_generated if plan.generated else None))
            for callback in self.callbacks:
                callback.on_micro_batch(micro, losses)
        engine.hold_power_iteration(False)

        # Everything the host wants to know of this step comes over in one transfer.
        votes = [
            self.wants_to_stop(),
            sum(callback.busy() for callback in self.callbacks),
            any(callback.due() for callback in self.callbacks),
        ]
        counts = torch.tensor(votes, dtype=torch.float64, device=engine.device)
        sums = sum_over_ranks(torch.cat([torch.stack(parts).sum(0), counts]))
        with torch.no_grad():
            norms = engine.gradient_norm().double().reshape(1)
            numbers = torch.cat([sums, norms, *_steepness(losses.prediction)]).tolist()
        *totals, stops, busy, due, norm = numbers[: len(sums) + 1]
        lipschitz, *layer_lipschitz = numbers[len(sums) + 1 :] or [None]
        names = ["loss", *losses.metrics]
        means = {name: totals.pop(0) / plan.batch_size for name in names}
        loss = means.pop("loss")
        if not (math.isfinite(loss) and math.isfinite(norm)):
            reason = explain(engine, self.objective, micro_batches, epsilon, loss)
            raise NonFiniteError(step + 1, reason)
        with watch.part("optimizer"):
            engine.step(learning_rate, plan.clip_norm)

        done = step + 1
        return StepRecord(
            step=done,
            epoch=step // self.loader.steps_per_epoch,
            images=plan.batch_size,
            loss=loss,
            metrics=means,
            by_origin=_by_origin(plan, names, iter(totals)) if plan.generated else {},
            epsilon=epsilon,
            learning_rate=learning_rate,
            lipschitz=lipschitz,
            layer_lipschitz=layer_lipschitz,
            gradient_norm=norm,
            ends_epoch=done % self.loader.steps_per_epoch == 0 or done == self.total_steps,
            leaves=stops > 0 or done in (self.total_steps, plan.max_steps),
            busy=int(busy),
            due=due > 0,
            seconds=watch.take(),
        )


@contextmanager
def _gradients_marked(engine: Engine) -> Iterator[None]:
    """Marks the stopwatch at every gradient that is ready, where ranks wait for each other."""
    if engine.world.size == 1:
        yield
        return
    parameters = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda _: mark()) for parameter in parameters
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _steepness(prediction: Prediction | None) -> list[Tensor]:
    """K and the estimate of each layer, float64; nothing where no classifier was asked."""
    if prediction is None:
        return []
    return [
        prediction.margin_lipschitz.max().double().reshape(1),
        prediction.layer_lipschitz.double(),
    ]


def _sums(losses: Losses, is_generated: Tensor | None) -> Tensor:
    """Sums over the micro-batch of the loss and each metric, [1 + metrics] float64.

    With `is_generated` [B] the sums over the real and over the generated images follow.
    """
    columns = [column.detach().double() for column in (losses.per_sample, *losses.metrics.values())]
    sums = [column.sum() for column in columns]
    if is_generated is not None:
        for others in (is_generated, ~is_generated):
            sums += [column.masked_fill(others, 0.0).sum() for column in columns]
    return torch.stack(sums)


def _by_origin(
    plan: Plan, names: Sequence[str], rest: Iterator[float]
) -> dict[str, dict[str, float]]:
    """The means over the real and over the generated images, from `_sums`."""
    counts = {"real": plan.batch_size - plan.generated, "generated": plan.generated}
    return {
        origin: {name: next(rest) / count for name in names} for origin, count in counts.items()
    }
