import pytest
import torch

from pipeline.diffusion.average import WeightAverage
from pipeline.training.callbacks import StepRecord
from tests.diffusion.tiny import denoiser


def record(step: int) -> StepRecord:
    return StepRecord(step, 0, 1, 0.0, {}, 0.0, 0.0, None, [], 0.0, False, False)


def test_it_is_the_plain_recursion_and_goes_through_a_checkpoint() -> None:
    network = denoiser()
    average = WeightAverage(network, 0.6, torch.device("cpu"))
    weight = network.unet.conv_in.weight
    expected = None
    saved = {}
    for step in range(1, 12):
        with torch.no_grad():
            weight.add_(torch.randn_like(weight))
        average.on_step_end(record(step))
        n = step - 1
        decay = min(0.6, (1 + n) / (10 + n))
        now = weight.detach().clone()
        expected = now if expected is None else decay * expected + (1 - decay) * now
        torch.testing.assert_close(average.model.unet.conv_in.weight, expected)
        if step == 5:
            saved = {name: value.clone() for name, value in average.tensors().items()}
            kept = network.state_dict()
            kept = {name: value.clone() for name, value in kept.items()}
    assert not average.model.training and not average.model.unet.conv_in.weight.requires_grad

    again = WeightAverage(denoiser(), 0.6, torch.device("cpu"))
    again.load_tensors(saved)
    assert all(torch.equal(value, saved[name]) for name, value in again.tensors().items())
    assert int(again.tensors()["updates"]) == 5


def test_rank_0_alone_copies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    average = WeightAverage(denoiser(), 0.6, torch.device("cpu"))
    assert average.tensors()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not average.tensors()
