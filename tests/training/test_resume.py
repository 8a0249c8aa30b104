"""Restoring at every single step of a run ends with the bits of the undisturbed run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pipeline import config, run
from pipeline.checkpoint import Checkpoint, load_latest
from pipeline.config import RunConfig

STEPS = 40


def settings(output: Path) -> RunConfig:
    """20 steps an epoch, two epochs; everything that has a state is in play."""
    return config.parse(
        {
            "name": "tiny",
            "output": str(output),
            "seed": 3,
            "data": {
                "train": "digits",
                "val": "digits",
                "workers": 1,
                "augmentation": {"crop_padding": 1, "flip": True},
            },
            "model": {
                "name": "liresnet", "num_classes": 10, "image_size": 8, "in_channels": 1,
                "depth": 1, "width": 4, "features": 8,
            },
            "optimizer": {"lr": 0.01, "clip_norm": 1.0},
            "training": {
                "epochs": 2, "batch_size": 71, "warmup_epochs": 0.5, "validate_every": 1,
            },
            "checkpoint": {"every_steps": 1, "keep": 2 * STEPS},
            "certification": {"at_end": False},
        }
    )  # fmt: skip


def final(directory: Path) -> tuple[Checkpoint, list[dict[str, object]]]:
    """The last checkpoint, and the metrics without what the clock wrote."""
    checkpoint = load_latest(directory / "checkpoints", print)
    assert checkpoint is not None
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("images_per_second", None)
        row.pop("seconds", None)
    return checkpoint, rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = settings(tmp_path_factory.mktemp("undisturbed"))
    assert run.main(chosen).finished
    assert len(list((chosen.directory / "checkpoints").iterdir())) == STEPS
    return chosen.directory


@pytest.mark.parametrize("step", range(1, STEPS))
def test_restored_at_every_step(undisturbed: Path, tmp_path: Path, step: int) -> None:
    chosen = settings(tmp_path)
    chosen.directory.mkdir()
    kept = chosen.directory / "checkpoints" / f"step_{step:06d}"
    shutil.copytree(undisturbed / "checkpoints" / kept.name, kept)
    for name in ("config.yaml", "metrics.jsonl"):  # rows beyond the checkpoint must be cut
        shutil.copy(undisturbed / name, chosen.directory / name)
    saved = (chosen.directory / "config.yaml").read_text()
    (chosen.directory / "config.yaml").write_text(
        saved.replace(str(undisturbed.parent), str(tmp_path))
    )

    torch.manual_seed(12345)  # a restarted process has another random state
    assert run.main(chosen).finished
    (mine, my_rows), (whole, rows) = final(chosen.directory), final(undisturbed)
    assert mine.step == whole.step == STEPS
    for part in ("model", "optimizer", "threatening_classes"):
        assert mine.tensors.names(part) == whole.tensors.names(part)
        for name, tensor in whole.tensors.part(part).items():
            assert torch.equal(mine.tensors.whole(part, name), tensor), f"{part}/{name}"
    assert my_rows == rows
