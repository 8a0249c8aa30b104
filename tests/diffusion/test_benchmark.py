"""The benchmark measures what it says: the same images, solvers and network on both sides."""

from pathlib import Path

import pytest
import torch

from pipeline import run
from pipeline.diffusion.benchmark import PlainLoop, measure, table
from pipeline.diffusion.draws import START, keys, normal
from pipeline.diffusion.parametrization import Parametrization
from pipeline.diffusion.sampler import Sampler, Settings
from tests.diffusion.tiny import TIMESTEPS, denoiser, settings

LABELS, NUMBERS = torch.arange(10), torch.zeros(10, dtype=torch.int64)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_the_plain_loop_draws_what_ours_draws(
    guidance: float, prediction: Parametrization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same noise, where nothing is cut: the first of many steps leave the range alone."""
    network = denoiser()
    noise = normal(keys(START, 0, LABELS, NUMBERS), (1, 8, 8))
    monkeypatch.setattr(torch, "randn", lambda *_, **__: noise)
    monkeypatch.setattr(torch.Tensor, "clamp", lambda self, *_, **__: self)
    given = Settings(TIMESTEPS, 3, guidance=guidance, prediction=prediction)
    ours = Sampler(network, given, torch.device("cpu"))(LABELS, NUMBERS)
    plain = PlainLoop(network, given, torch.device("cpu"))(LABELS, NUMBERS)
    same = (ours.int() - plain.int()).abs() % 256
    assert (torch.minimum(same, 256 - same) <= 2).float().mean() > 0.95


def test_all_take_turns(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    chosen.training.epochs = 1
    assert run.main(chosen).finished
    given = Settings(2, 2, guidance=1.5)
    contenders = measure(chosen.directory, given, 8, 16, rounds=2, compiled=False)
    assert [one.batch_size for one in contenders] == [16, 8, 8]
    assert all(len(one.wall) == len(one.cpu) == 2 and min(one.wall) > 0 for one in contenders)
    lines = table(contenders).splitlines()
    assert len(lines) == 4 and lines[2].split()[-1] == "1.00"
