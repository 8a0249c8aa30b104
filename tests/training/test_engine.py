"""The accelerate engine on its own: state there and back, models that do not fit."""

import pytest
import torch

from pipeline.checkpoint.fragments import WholeState
from pipeline.models import build_model
from tests.training.toy import CLASSES, Recorder, toy_engine, toy_loop


def test_state_there_and_back_continues_to_the_bit() -> None:
    straight = toy_engine()
    toy_loop(straight, max_steps=9).run()
    first = toy_engine()
    toy_loop(first, max_steps=7).run()
    state = first.state()
    toy_loop(first, max_steps=8).run(7)  # the state taken does not change with the model
    second = toy_engine()
    second.load_state(WholeState(state))
    toy_loop(second, max_steps=9).run(7)
    for part, tensors in straight.state().items():
        theirs = second.state()[part]
        assert tensors.keys() == theirs.keys()
        assert all(torch.equal(tensors[name], theirs[name]) for name in tensors), part


def test_state_names_parameters_and_buffers() -> None:
    engine = toy_engine()
    toy_loop(engine, max_steps=1).run()
    state = engine.state()
    assert "trunk.stem.conv.vector" in state["model"], "power-iteration vectors are saved"
    assert {"head.weight/exp_avg", "head.weight/slow"} <= state["optimizer"].keys()


def test_a_checkpoint_of_another_model_is_refused() -> None:
    other = toy_engine(model=build_model("liresnet", CLASSES, 8, 1, depth=1, width=8, features=16))
    with pytest.raises(ValueError, match=r"of another model: tensor 'trunk.backbone.1.conv"):
        toy_engine().load_state(WholeState(other.state()))
    wider = toy_engine(model=build_model("liresnet", CLASSES, 8, 1, depth=2, width=16, features=16))
    with pytest.raises(ValueError, match=r"tensor 'trunk.stem.conv"):
        toy_engine().load_state(WholeState(wider.state()))


def test_unusual_gradients_are_named_in_network_order() -> None:
    engine = toy_engine()
    toy_loop(engine, max_steps=1).run()
    parameters = dict(engine.module.named_parameters())
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    assert engine.bad_gradients() == [] and engine.gradient_norm() == 0
    parameters["head.bias"].grad[0] = torch.nan
    parameters["trunk.stem.conv.bias"].grad[0] = -torch.inf
    assert engine.bad_gradients() == ["trunk.stem.conv.bias", "head.bias"]
    assert not torch.isfinite(engine.gradient_norm())


def test_micro_batches_of_one_step_are_judged_by_the_same_estimates() -> None:
    recorder, engine = Recorder(), toy_engine()
    tables: list[torch.Tensor] = []
    recorder.on_micro_batch = lambda batch, losses: tables.append(  # type: ignore[method-assign]
        losses.prediction.layer_lipschitz.detach()
    )
    toy_loop(engine, [recorder], accumulation=4, max_steps=2).run()
    # The first of a step estimates while it advances, the others hold: equal up to rounding.
    for step in (tables[:4], tables[4:]):
        assert all(torch.allclose(step[0], other, rtol=1e-6) for other in step)
    assert not torch.equal(tables[3], tables[4])
