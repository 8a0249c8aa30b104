"""metrics.jsonl and TensorBoard: what is in a row, and what a resume does to the file."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.training.callbacks import EpochRecord, StepRecord
from pipeline.training.picture_grid import picture_grid
from pipeline.training.telemetry import Telemetry, cut_back
from pipeline.types import Batch

LAYERS = ["stem", "neck"]


def step_record(step: int, **changes: object) -> StepRecord:
    record = {
        "step": step,
        "epoch": 0,
        "images": 64,
        "loss": 1 / step,
        "metrics": {"correct": 0.5, "margin": 1.5},
        "epsilon": 0.1,
        "learning_rate": 1e-3,
        "lipschitz": 7.0,
        "layer_lipschitz": [2.0, 3.5],
        "gradient_norm": 0.7,
        "ends_epoch": False,
        "leaves": False,
    }
    return StepRecord(**{**record, **changes})


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(folder: Path, begin: int, end: int, every: int = 1) -> None:
    telemetry = Telemetry(folder, LAYERS, every)
    telemetry.on_start(begin)
    for step in range(begin + 1, end + 1):
        telemetry.on_step_end(step_record(step))
    telemetry.on_end()


def test_a_row_has_every_number(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path, LAYERS)
    telemetry.on_start(0)
    seconds = {"forward": 0.5, "lipschitz": 0.25, "backward": 1.0, "other": 9.0}
    telemetry.on_step_end(step_record(1, seconds=seconds))
    (row,) = rows(tmp_path)  # in the file at once, not when it is closed
    validation = {"clean_accuracy": 0.9, "vra_estimate": 0.8, "epsilon": "36/255"}
    numbers = {"threatening_class_changed": None, "validation": validation}
    telemetry.on_epoch_end(EpochRecord(1, 0, last=True, numbers=numbers))
    telemetry.on_end()
    assert row.pop("images_per_second") > 0
    assert row.pop("seconds") == {
        "data": 0, "forward": 0.5, "lipschitz": 0.25, "backward": 1, "communication": 0,
        "optimizer": 0,
    }  # fmt: skip
    assert row == {
        "kind": "step", "step": 1, "epoch": 0, "loss": 1.0, "clean_accuracy": 0.5, "margin": 1.5,
        "epsilon": 0.1, "lipschitz": 7.0, "gradient_norm": 0.7, "learning_rate": 1e-3,
        "layer_lipschitz": {"stem": 2.0, "neck": 3.5},
    }  # fmt: skip
    assert rows(tmp_path)[1] == {"kind": "epoch", "step": 1, "epoch": 0, **numbers}

    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = set(board.Tags()["scalars"])
    assert {
        "train/loss", "train/clean_accuracy", "train/epsilon", "train/lipschitz",
        "train/gradient_norm", "train/learning_rate", "train/images_per_second",
        "seconds/forward", "layer_lipschitz/stem", "layer_lipschitz/neck",
        "validation/clean_accuracy", "validation/vra_estimate",
    } <= tags  # fmt: skip
    (point,) = board.Scalars("layer_lipschitz/neck")
    assert (point.step, point.value) == (1, 3.5)


def test_seconds_are_a_steps(tmp_path: Path) -> None:
    """With a row every second step they are means, and validation does not leak into them."""
    telemetry = Telemetry(tmp_path, LAYERS, 2)
    telemetry.on_start(0)
    for step, forward in ((1, 1.0), (2, 3.0), (3, 7.0)):
        telemetry.on_step_end(step_record(step, seconds={"forward": forward}))
    telemetry.on_epoch_end(EpochRecord(3, 0, last=False))
    telemetry.on_step_end(step_record(4, seconds={"forward": 0.5}))
    telemetry.on_end()
    assert [row["seconds"]["forward"] for row in rows(tmp_path) if "seconds" in row] == [2.0, 0.5]


def test_a_resume_neither_loses_nor_doubles_rows(tmp_path: Path) -> None:
    write(tmp_path, 0, 9)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # the kill came within a line
    write(tmp_path, 6, 8)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8]
    board = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True).Reload()
    assert [point.step for point in board.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_run_that_begins_anew_begins_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    write(tmp_path, 0, 2)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


def test_the_epochs_row_of_the_checkpoints_step_stays(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 1}, {"step": 2}, {"step": 2, "kind": "epoch"}, {"step": 3}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cut_back(path, 2)
    assert rows(tmp_path) == lines[:3]
    cut_back(tmp_path / "missing.jsonl", 2)
    assert not (tmp_path / "missing.jsonl").exists()


def test_every_nth_step(tmp_path: Path) -> None:
    write(tmp_path, 0, 10, every=4)
    assert [row["step"] for row in rows(tmp_path)] == [4, 8]


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    write(tmp_path, 0, 3)
    assert list(tmp_path.iterdir()) == []


def test_infinity_is_null_since_json_has_none(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path, LAYERS)
    telemetry.on_start(0)
    telemetry.on_step_end(step_record(1, lipschitz=float("inf")))
    telemetry.on_end()
    assert rows(tmp_path)[0]["lipschitz"] is None


def test_pictures_of_augmented_batches_are_shown(tmp_path: Path) -> None:
    images = torch.rand(5, 3, 16, 16)
    batch = Batch(images, torch.zeros(5, dtype=torch.long), torch.arange(5), torch.zeros(5))
    telemetry = Telemetry(tmp_path, LAYERS)
    telemetry.on_start(0)
    for step in range(1, 9):  # two steps an epoch, two micro-batches a step
        for _ in range(2):
            telemetry.on_micro_batch(batch, losses=None)  # type: ignore[arg-type]
        telemetry.on_step_end(step_record(step))
        if step % 2 == 0:
            telemetry.on_epoch_end(EpochRecord(step, step // 2 - 1, last=False))
    telemetry.on_end()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = board.Images("train/augmented_images")
    assert [event.step for event in shown] == [1, 3, 5]  # before epochs 1, 2 and 3, not 4
    picture = np.asarray(Image.open(io.BytesIO(shown[0].encoded_image_string)))
    expected = (images[1] * 255).round().to(torch.uint8)
    assert (picture[0:64:4, 66:130:4] == expected.permute(1, 2, 0).numpy()).all()


def test_the_grid_of_grey_images_and_of_photographs() -> None:
    grey = torch.arange(64).view(1, 1, 8, 8).expand(40, -1, -1, -1) / 255
    grid = picture_grid(grey)
    assert grid.shape == (3, 4 * 66, 8 * 66) and grid.dtype == torch.uint8
    assert torch.equal(grid[0, 0:64:8, 0:64:8], torch.arange(64, dtype=torch.uint8).view(8, 8))
    assert (grid[:, 64:66] == 0).all() and torch.equal(grid[0], grid[2])
    assert picture_grid(torch.rand(3, 3, 224, 224)).shape == (3, 226, 8 * 226)
