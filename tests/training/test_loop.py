"""The loop: reduction, accumulation, processes, schedules, positions, leaving."""

import math
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.data.mixing import check_batch_size
from pipeline.stopwatch import Stopwatch
from pipeline.training.callbacks import EpochRecord
from tests.training.toy import (
    BATCH,
    STEPS_PER_EPOCH,
    Recorder,
    ToyLoader,
    toy_engine,
    toy_loop,
    toy_model,
)

FAR = 5 * STEPS_PER_EPOCH


def trained(**plan: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of 20 steps, and the final weights."""
    recorder, engine = Recorder(), toy_engine()
    assert toy_loop(engine, [recorder], **plan).run() == FAR
    return [record.loss for record in recorder.records], engine.module.state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def norm_of(model: nn.Module) -> float:
    """l2 norm of the whole gradient, in float64."""
    squares = [float(p.grad.double().square().sum()) for p in model.parameters()]
    return math.sqrt(sum(squares))


def test_it_learns_and_two_runs_are_equal_to_the_bit() -> None:
    losses, weights = trained()
    again, same = trained()
    assert losses == again and equal(weights, same)
    assert losses[-1] < 0.85 * losses[0]


def test_nothing_draws_from_torchs_generator() -> None:
    """That is why a position is one number."""
    loop = toy_loop()
    before = torch.get_rng_state()
    loop.run()
    assert torch.equal(before, torch.get_rng_state())


def test_first_step_against_plain_torch() -> None:
    """Mean cross entropy of the global batch, its gradient clipped, and the plain metrics."""

    def plain(model, batch, epsilon):
        from pipeline.objectives.base import judged

        prediction = model(batch.images)
        losses = F.cross_entropy(prediction.logits, batch.labels, reduction="none")
        return judged(losses, prediction, batch.labels, epsilon)

    recorder, engine = Recorder(), toy_engine()
    stepped: list[float] = []
    engine._optimizer.register_step_pre_hook(
        lambda optimizer, *_: stepped.append(
            math.sqrt(
                sum(float(p.grad.double().square().sum()) for p in engine.module.parameters())
            )
        )
    )
    toy_loop(engine, [recorder], plain, clip_norm=0.01, max_steps=1).run()
    record = recorder.records[0]

    model = toy_model()
    batch = next(ToyLoader(engine.world).epoch(0)).to(torch.device("cpu"))
    prediction = model(batch.images)
    loss = F.cross_entropy(prediction.logits, batch.labels)
    loss.backward()
    norm = norm_of(model)
    assert record.loss == pytest.approx(loss.item(), rel=1e-6)
    assert record.gradient_norm == pytest.approx(norm, rel=1e-5)
    assert stepped == [pytest.approx(0.01, rel=1e-4)] and norm > 0.02
    correct = (prediction.logits.argmax(1) == batch.labels).float().mean().item()
    assert record.metrics["correct"] == pytest.approx(correct)
    assert record.lipschitz == pytest.approx(prediction.margin_lipschitz.max().item(), rel=1e-6)
    assert record.layer_lipschitz == pytest.approx(prediction.layer_lipschitz.tolist(), rel=1e-6)
    assert record.images == BATCH


def test_a_short_gradient_is_not_lengthened() -> None:
    assert trained(clip_norm=1e6)[0] == pytest.approx(trained()[0], rel=1e-6)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_makes_the_same_steps(accumulation: int) -> None:
    whole, weights = trained()
    parts, same = trained(accumulation=accumulation)
    assert parts == pytest.approx(whole, rel=1e-4)
    vectors = [name for name, _ in toy_model().named_buffers()]
    assert vectors, "the power iteration has its vectors"
    for name in weights:  # the vectors advance once a step, however it is cut
        assert torch.allclose(weights[name], same[name], rtol=1e-2, atol=1e-3), name


def test_schedules_are_functions_of_the_step() -> None:
    recorder = Recorder()
    toy_loop(
        callbacks=[recorder],
        learning_rate=lambda step: 1e-4 * (step + 1),
        epsilon=lambda step: step / 7,
        max_steps=6,
    ).run()
    assert [r.learning_rate for r in recorder.records] == [1e-4 * (s + 1) for s in range(6)]
    assert [r.epsilon for r in recorder.records] == [s / 7 for s in range(6)]
    assert [(r.step, r.epoch, r.ends_epoch) for r in recorder.records] == [
        (1, 0, False), (2, 0, False), (3, 0, False), (4, 0, True), (5, 1, False), (6, 1, False),
    ]  # fmt: skip
    assert [r.leaves for r in recorder.records] == [False] * 5 + [True]


def test_the_learning_rate_reaches_the_optimizer() -> None:
    engine = toy_engine()
    before = {name: tensor.clone() for name, tensor in engine.module.named_parameters()}
    toy_loop(engine, learning_rate=lambda step: 0.0, max_steps=3).run()
    assert all(torch.equal(before[name], p) for name, p in engine.module.named_parameters())


class Epochs(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[EpochRecord] = []

    def on_epoch_end(self, record: EpochRecord) -> None:
        self.epochs.append(record)


def test_a_request_to_stop_ends_after_the_step_and_the_epoch_row_is_kept() -> None:
    seen = Epochs()
    loop = toy_loop(callbacks=[seen], wants_to_stop=lambda: len(seen.records) == 3)
    assert loop.run() == STEPS_PER_EPOCH  # asked within the fourth step, which ends the epoch
    assert seen.records[-1].leaves and [e.step for e in seen.epochs] == [STEPS_PER_EPOCH]
    assert loop.run(STEPS_PER_EPOCH) == FAR
    assert [(e.epoch, e.last) for e in seen.epochs] == [(n, n == 4) for n in range(5)]


def test_every_part_of_a_step_has_its_time() -> None:
    recorder = Recorder()
    began = time.perf_counter()
    toy_loop(callbacks=[recorder]).run()
    whole = time.perf_counter() - began
    for record in recorder.records:
        parts = dict(record.seconds)
        parts.pop("other")
        assert parts.pop("data") >= 0
        assert set(parts) == {"forward", "lipschitz", "backward", "optimizer"}, "one rank waits not"
        assert min(parts.values()) > 0
    total = sum(sum(record.seconds.values()) for record in recorder.records)
    assert 0.5 * whole < total <= whole
    assert Stopwatch.active is None


def test_a_length_in_steps_may_end_within_an_epoch() -> None:
    seen = Epochs()
    assert toy_loop(callbacks=[seen], steps=6, epochs=1).run() == 6
    assert [(e.step, e.epoch, e.last) for e in seen.epochs] == [(4, 0, False), (6, 1, True)]
    assert [r.ends_epoch for r in seen.records] == [False, False, False, True, False, True]
    assert [r.leaves for r in seen.records] == [False] * 5 + [True]


def test_a_finished_run_does_nothing() -> None:
    seen = Epochs()
    assert toy_loop(callbacks=[seen]).run(FAR) == FAR
    assert not seen.records and not seen.epochs


def test_bf16_is_close_to_fp32_and_evaluation_is_fp32() -> None:
    exact = trained()[0]
    recorder, engine = Recorder(), toy_engine("bf16")
    toy_loop(engine, [recorder]).run()
    losses = [record.loss for record in recorder.records]
    assert losses != exact and losses == pytest.approx(exact, rel=0.1)
    images = next(ToyLoader(engine.world).epoch(0)).to(engine.device).images
    engine.module.eval()
    with torch.no_grad():
        assert torch.equal(engine.forward(images).logits, engine.module(images).logits)


@pytest.mark.parametrize(
    ("batch_size", "processes", "accumulation", "near"),
    [(250, 2, 4, "248 or 256"), (3, 8, 1, "take 8"), (17, 1, 2, "16 or 18")],
)
def test_a_batch_that_does_not_divide(
    batch_size: int, processes: int, accumulation: int, near: str
) -> None:
    with pytest.raises(ValueError, match=near) as error:
        check_batch_size(batch_size, processes, accumulation)
    assert f"training.batch_size {batch_size}" in str(error.value)
    check_batch_size(processes * accumulation * 3, processes, accumulation)
