"""What to say when a loss or gradient is not finite: the step, and the layer it began in.

Notable: the search runs the forward once more with a hook on every module, on all ranks alike,
because a sharded forward is a collective. It costs nothing until the run is lost anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.distributed import gather_objects
from pipeline.objectives.base import Objective
from pipeline.training.engine import Engine
from pipeline.types import Batch, Prediction


class NonFiniteError(ArithmeticError):
    """A loss or gradient is NaN or infinite. The update was not made, on any rank."""

    def __init__(self, step: int, reason: str) -> None:
        self.step = step
        """The step that was not finished, counted from 1."""
        self.reason = reason
        super().__init__(
            f"step {step}: {reason}; the run stopped before the update, and the last checkpoint is "
            "as it was. Try a lower optimizer.lr, a smaller optimizer.clip_norm, or "
            "training.precision fp32"
        )

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[int, str]]:
        """From another process (`pipeline.sweep.step_cost`) it comes as it was."""
        return type(self), (self.step, self.reason)


def explain(
    engine: Engine,
    objective: Objective,
    micro_batches: Sequence[Batch],
    epsilon: float,
    loss: float,
) -> str:
    """Where the first number that is not finite arose; the same sentence on every rank.

    Args:
        micro_batches: of this rank, as the failed step had them.
        epsilon: of the failed step.
        loss: of the global batch; finite if only the gradient is not.
    """
    if math.isfinite(loss):
        bad = engine.bad_gradients()
        if not bad:
            return "the norm of the whole gradient is too large for float32"
        others = f" (and of {len(bad) - 1} more parameters)" if len(bad) > 1 else ""
        # Gradients flow from the last layer to the first: the last bad one was bad first.
        return f"the gradient of {bad[-1]!r}{others} is not finite"
    findings = []
    for batch in micro_batches:
        with torch.no_grad(), _first_bad_output(engine.module) as found:
            engine.hold_power_iteration(True)
            losses = objective(engine.forward, batch, epsilon)
        with engine.whole_model() as model:
            bad = _bad_parameters(model)
        found = [
            *bad,  # then the outputs after it are bad because of it
            *found,
            *_bad_estimates(engine.module, losses.prediction),
        ]
        if not losses.per_sample.isfinite().all():
            findings.append(found[0] if found else "every logit is finite, the objective is not")
    everywhere = [finding for of_rank in gather_objects(findings) for finding in of_rank]
    where = everywhere[0] if everywhere else "it was finite when computed once more"
    return f"the loss is {loss}: {where}"


@contextmanager
def _first_bad_output(model: nn.Module) -> Iterator[list[str]]:
    """Collects a sentence for each module whose output is not finite, innermost first."""
    found: list[str] = []
    handles = []
    for name, module in model.named_modules():

        def hook(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            finite = all(t.isfinite().all() for t in tensors if isinstance(t, Tensor))
            if name and not finite:
                found.append(f"the output of layer {name!r} is not finite")

        handles.append(module.register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _bad_parameters(model: nn.Module) -> list[str]:
    """A sentence for each parameter that is itself not finite."""
    return [
        f"the parameter {name!r} is not finite"
        for name, parameter in model.named_parameters()
        if not parameter.isfinite().all()
    ]


def _bad_estimates(model: nn.Module, prediction: Prediction | None) -> list[str]:
    """A sentence for each Lipschitz estimate that is not finite."""
    if prediction is None:
        return []
    finite = prediction.layer_lipschitz.isfinite().tolist()
    names = getattr(model, "norm_names", [str(number) for number in range(len(finite))])
    found = [
        f"the Lipschitz estimate of layer {name!r} is not finite"
        for name, good in zip(names, finite, strict=True)
        if not good
    ]
    if not found and not prediction.margin_lipschitz.isfinite().all():
        found = ["the product of the layers' Lipschitz estimates is not finite"]
    return found
