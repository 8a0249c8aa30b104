"""Which settings a draw has: the run's own, and what a command line puts in their place."""

from pathlib import Path

import pytest
import torch

from pipeline import config, run
from pipeline.config import SamplingConfig
from pipeline.diffusion.generate import load_network, sampling_of
from tests.diffusion.tiny import settings


def run_with(folder: Path, sampling: dict) -> Path:
    generator = settings(folder, sampling=sampling)
    generator.directory.mkdir()
    config.save(generator, generator.directory / "config.yaml")
    return generator.directory


def test_what_is_not_given_is_as_the_run_has_it(tmp_path: Path) -> None:
    own = {"steps": 15, "guidance": 1.5, "precision": "bf16", "compile": True, "out": "old.npz"}
    found = sampling_of(
        run_with(tmp_path, own | {"force": True}), {"out": "x.npz", "steps": 3, "compile": False}
    )
    assert found == SamplingConfig(out="x.npz", steps=3, guidance=1.5, precision="bf16")


def test_place_and_force_are_of_a_command_alone(tmp_path: Path) -> None:
    own = run_with(tmp_path, {"out": "old.npz", "force": True})
    assert sampling_of(own, {}) == SamplingConfig()


def test_a_filter_is_the_runs_own_or_the_given_one(tmp_path: Path) -> None:
    judge = {"classifier": "runs/judge", "confidence": 0.7}
    own = run_with(tmp_path, {"filter": judge})
    kept = sampling_of(own, {}).filter
    assert kept is not None and kept.model_dump() == judge
    other = sampling_of(own, {"filter": {"classifier": "runs/other"}}).filter
    assert other is not None and (other.classifier, other.confidence) == ("runs/other", 0.5)


def test_of_no_run_the_defaults(tmp_path: Path) -> None:
    """What is missing there is said when the generator is looked for."""
    assert sampling_of(tmp_path / "lost", {"count": 7}) == SamplingConfig(count=7)


def test_what_is_out_of_range_is_named_as_an_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--batch-size 0"):
        sampling_of(run_with(tmp_path, {}), {"batch_size": 0})


def test_a_checkpoint_of_another_network_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """As of an older version of the network, whose names were others."""
    chosen = settings(tmp_path)
    chosen.training.epochs = 1
    assert run.main(chosen).finished
    other = settings(tmp_path, model=chosen.model.model_dump() | {"channels": 16})
    with pytest.raises(ValueError, match="the checkpoint is of another model: tensor '"):
        load_network(chosen.directory, other, "newest", torch.device("cpu"))
