"""A loss or gradient that is not finite stops the run before the update, and is traced."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.objectives import build_objective
from pipeline.training.guards import NonFiniteError
from tests.training.toy import Recorder, on_processes, toy_engine, toy_loop

EMMA = build_objective("emma")


def parameters(engine) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in engine.module.named_parameters()}


class Breaks:
    """EMMA; from step `at` (counted from 1) on, `breakage` is done to the model first."""

    def __init__(self, at: int, breakage) -> None:
        self.at, self.breakage, self.calls = at, breakage, 0

    def __call__(self, model, batch, epsilon):
        self.calls += 1
        if self.calls == self.at:
            self.breakage()
        return EMMA(model, batch, epsilon)


def failed(engine, objective) -> tuple[NonFiniteError, Recorder]:
    recorder = Recorder()
    with pytest.raises(NonFiniteError) as error:
        toy_loop(engine, [recorder], objective).run()
    return error.value, recorder


def test_the_layer_whose_output_overflows_is_named() -> None:
    engine = toy_engine()
    layer = next(
        module for name, module in engine.module.named_modules() if name == "trunk.neck.conv"
    )
    kept: dict[str, Tensor] = {}

    def overflow() -> None:
        layer.register_forward_hook(lambda module, inputs, output: output * 1e38 * 1e38)
        kept.update(parameters(engine))

    error, recorder = failed(engine, Breaks(3, overflow))
    assert error.step == 3 and "step 3: the loss is nan" in str(error)
    assert "'trunk.neck.conv'" in str(error)
    assert [record.step for record in recorder.records] == [1, 2]
    after = parameters(engine)
    assert all(torch.equal(kept[name], after[name]) for name in kept), "no update was made"


def test_a_parameter_that_is_not_finite_is_named() -> None:
    engine = toy_engine()
    bias = dict(engine.module.named_parameters())["head.bias"]

    def spoil() -> None:
        with torch.no_grad():
            bias[1] = torch.inf

    error, _ = failed(engine, Breaks(2, spoil))
    assert "head.bias" in str(error) and "step 2" in str(error)


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


def test_the_layer_where_a_gradient_breaks_is_named() -> None:
    engine = toy_engine()
    modules = dict(engine.module.named_modules())
    layer: nn.Module = modules["trunk.backbone.1.conv"]

    def spoil() -> None:
        layer.register_forward_hook(lambda module, inputs, output: BadGradient.apply(output))

    error, recorder = failed(engine, Breaks(2, spoil))
    assert "the gradient of 'trunk.backbone.1.conv." in str(error), str(error)
    assert "more parameters" in str(error) and len(recorder.records) == 1


def test_an_objective_that_is_not_finite_is_told_from_the_model() -> None:
    def broken(model, batch, epsilon):
        losses = EMMA(model, batch, epsilon)
        return type(losses)(
            losses.per_sample / 0.0, losses.metrics, losses.prediction, losses.threatening
        )

    error, _ = failed(toy_engine(), broken)
    assert "every logit is finite, the objective is not" in str(error)


ON_ONE_RANK = """
import torch
from pipeline.objectives import build_objective
from pipeline.training.guards import NonFiniteError
from tests.training.toy import toy_engine, toy_loop
emma, calls = build_objective("emma"), 0
def broken(model, batch, epsilon):
    global calls
    calls += 1
    losses = emma(model, batch, epsilon)
    if calls >= 3 and world.rank == 1:
        losses.per_sample[0].data.fill_(torch.nan)
    return losses
engine = toy_engine()
try:
    toy_loop(engine, objective=broken).run()
except NonFiniteError as error:
    assert error.step == 3
    assert d.gather_objects(str(error)) == [str(error)] * 2
    weights = {n: t.double().sum().item() for n, t in engine.module.state_dict().items()}
    assert d.gather_objects(weights) == [weights] * 2
    print(f"stopped {world.rank};")
"""


def test_all_ranks_stop_when_one_finds_it(tmp_path: Path) -> None:
    output = on_processes(2, ON_ONE_RANK, tmp_path)
    assert "stopped 0;" in output and "stopped 1;" in output
