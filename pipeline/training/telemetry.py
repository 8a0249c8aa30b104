"""The run's record: metrics.jsonl, one JSON object a line, and the same numbers in TensorBoard.

Notable:
- TensorBoard also gets pictures of augmented batches: look at them before a long run.
- Rank 0 writes. Rows are on the disk before the checkpoint of the same step, and a resume cuts the
  file back to the checkpoint's step: killed anywhere, no row is missing and none stands twice.
- `seconds` are a step's, of rank 0, by part. What follows the last gradient of a step and what our
  own collectives take is `communication`; what the backward pass hides is in `backward`.
- Rows of kind "step" have the key `loss`; rows of kind "epoch" have the validation. Times apart,
  equal runs write equal rows.
- Where batches are mixed, numbers are of all images, and those of the two parts stand besides under
  `real` and `generated`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from pipeline.distributed import current_world
from pipeline.objectives.base import Losses
from pipeline.stopwatch import PARTS
from pipeline.training.callbacks import Callback, EpochRecord, StepRecord
from pipeline.training.picture_grid import picture_grid
from pipeline.types import Batch


class Telemetry(Callback):
    """Writes `metrics.jsonl` and `tensorboard/` in the run directory.

    Args:
        directory: the run directory; exists.
        layer_names: of the entries of `StepRecord.layer_lipschitz`.
        every_steps: write the numbers of every so many steps.
    """

    def __init__(self, directory: Path, layer_names: list[str], every_steps: int = 1) -> None:
        self._directory = directory
        self._layer_names = layer_names
        self._every = every_steps
        self._main = current_world().is_main
        self._file: TextIOWrapper | None = None
        self._board: Any = None
        self._images = 0
        self._since = 0.0
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._steps = 0
        self._step = 0
        self._shows_pictures = True

    def on_start(self, step: int) -> None:
        """Cut the record back to `step` and go on behind it."""
        self._since = time.monotonic()
        self._step = step
        if not self._main:
            return
        # Imported here, since it takes a second and only one rank needs it.
        from torch.utils.tensorboard import SummaryWriter

        path = self._directory / "metrics.jsonl"
        cut_back(path, step)
        self._file = path.open("a", buffering=1)  # a row is in the file when the call returns
        self._board = SummaryWriter(str(self._directory / "tensorboard"), purge_step=step + 1)

    def on_micro_batch(self, batch: Batch, losses: Losses) -> None:
        """Show some images of the first step, and of the first after epochs 1, 2, 4, 8, ..."""
        if self._shows_pictures and self._board is not None:
            grid = picture_grid(batch.images)
            self._board.add_image("train/augmented_images", grid, self._step + 1)
        self._shows_pictures = False

    def on_step_end(self, record: StepRecord) -> None:
        """Write a row, if it is this step's turn."""
        self._step = record.step
        self._images += record.images
        self._steps += 1
        for name in PARTS:
            self._seconds[name] += record.seconds.get(name, 0.0)
        if record.step % self._every:
            return
        now = time.monotonic()
        speed = self._images / max(now - self._since, 1e-9)
        seconds = {name: round(total / self._steps, 6) for name, total in self._seconds.items()}
        self._images, self._since = 0, now
        self._steps, self._seconds = 0, dict.fromkeys(PARTS, 0.0)
        row: dict[str, Any] = {
            "kind": "step",
            "step": record.step,
            "epoch": record.epoch,
            **_named({"loss": record.loss, **record.metrics}),
            **_of_classifiers(record),
            "gradient_norm": record.gradient_norm,
            "learning_rate": record.learning_rate,
            **{origin: _named(means) for origin, means in record.by_origin.items()},
            "images_per_second": round(speed, 1),
            "seconds": seconds,
            "layer_lipschitz": dict(zip(self._layer_names, record.layer_lipschitz, strict=True)),
        }
        self._write(row, "train")

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Write the epoch's row."""
        row = {"kind": "epoch", "step": record.step, "epoch": record.epoch, **record.numbers}
        self._write(row, "epoch")
        for name, picture in record.pictures.items():
            if self._board is not None:
                self._board.add_image(name, picture, record.step)
        finished = record.epoch + 1
        self._shows_pictures = finished & (finished - 1) == 0
        # Validation and checkpoints are not training: the next row's speed does not count them.
        self._images, self._since = 0, time.monotonic()
        self._steps, self._seconds = 0, dict.fromkeys(PARTS, 0.0)

    def sync(self) -> None:
        """See `Callback.sync`; a power cut takes what only the system has."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def on_end(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
            self._board.close()

    def _write(self, row: dict[str, Any], group: str) -> None:
        """One row to both places."""
        if self._file is None:
            return
        self._file.write(json.dumps(_finite(row), allow_nan=False) + "\n")
        for name, value in row.items():
            if isinstance(value, dict):
                for entry, number in value.items():
                    self._scalar(f"{name}/{entry}", number, row["step"])
            elif name not in {"kind", "step"}:
                self._scalar(f"{group}/{name}", value, row["step"])

    def _scalar(self, tag: str, value: Any, step: int) -> None:
        """A point of a TensorBoard curve; what is no number makes none."""
        if isinstance(value, int | float):
            self._board.add_scalar(tag, value, step)


def _of_classifiers(record: StepRecord) -> dict[str, Any]:
    """The radius and the steepness, where they mean something."""
    if record.lipschitz is None:
        return {}
    return {"epsilon": record.epsilon, "lipschitz": record.lipschitz}


def cut_back(path: Path, step: int) -> None:
    """Remove what was written after `step`: rows of later steps, and a line torn by a kill.

    Args:
        path: rows in order of their steps; a missing file is left missing.
        step: rows of this step and before stay.
    """
    if not path.exists():
        return
    keep = 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            keep += len(line)
        file.truncate(keep)


def _named(means: Mapping[str, float]) -> dict[str, float]:
    """The numbers under their names in the record."""
    return {("clean_accuracy" if name == "correct" else name): mean for name, mean in means.items()}


def _finite(value: Any) -> Any:
    """JSON has no infinity: a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
