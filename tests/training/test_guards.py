"""A loss or gradient that is not finite stops the run before the update, and is traced."""

import pickle

import pytest
import torch
from torch import Tensor, nn

from pipeline.objectives import build_objective
from pipeline.training.guards import NonFiniteError
from tests.training.toy import Recorder, toy_engine, toy_loop

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


def test_the_error_comes_from_another_process_as_it_was() -> None:
    error = NonFiniteError(3, "the loss is nan")
    again = pickle.loads(pickle.dumps(error))
    assert (again.step, str(again)) == (3, str(error))
