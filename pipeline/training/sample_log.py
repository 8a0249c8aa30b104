"""A log of which samples every step used: the proof that none is lost and none seen twice.

Notable:
- It is kept like metrics.jsonl: a start cuts every rank's file back to the checkpoint that it goes
  on from, since the weights went back there too. What stands in the files is what the weights have
  seen, whatever was killed, requeued, or continued on another number of processes.
- `verify_samples` compares the files with the order, which follows from seed and epoch alone.
"""

from __future__ import annotations

import os
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from pipeline.data.order import GeneratedOrder, Order, Steps
from pipeline.distributed import barrier, current_world
from pipeline.objectives.base import Losses
from pipeline.training.callbacks import Callback, StepRecord
from pipeline.types import Batch

FOLDER = "samples"


class SampleLog(Callback):
    """Writes `samples/rank_0003.tsv` in the run directory: step, tab, this rank's sample ids.

    Of mixed batches a second tab and the ids of the generated images follow (`Batch.sample_ids`).

    Args:
        directory: the run directory; exists.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._file: TextIOWrapper | None = None
        self._real: list[int] = []
        self._generated: list[int] = []

    def on_start(self, step: int) -> None:
        """Cut all ranks' files back to `step`; also those of ranks that there are no longer."""
        world = current_world()
        if world.is_main:
            self._folder.mkdir(exist_ok=True)
            for path in self._folder.glob("rank_*.tsv"):
                _cut_back(path, step)
        barrier()
        path = self._folder / f"rank_{world.rank:04d}.tsv"
        self._file = path.open("a", buffering=1)  # a row is in the file when the call returns

    def on_micro_batch(self, batch: Batch, losses: Losses) -> None:
        """Note this rank's part."""
        self._real += batch.sample_ids[~batch.is_generated].tolist()
        self._generated += batch.sample_ids[batch.is_generated].tolist()

    def on_step_end(self, record: StepRecord) -> None:
        """The weights have seen them."""
        assert self._file is not None
        columns = [self._real, self._generated] if self._generated else [self._real]
        written = (" ".join(map(str, ids)) for ids in columns)
        self._file.write("\t".join([str(record.step), *written]) + "\n")
        self._real, self._generated = [], []

    def sync(self) -> None:
        """See `Callback.sync`; a power cut takes what only the system has."""
        assert self._file is not None
        os.fsync(self._file.fileno())

    def on_end(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def verify_samples(
    directory: Path, order: Order, steps: int, generated: GeneratedOrder | None = None
) -> None:
    """Make sure that `steps` steps used exactly the samples that the order gives them.

    Args:
        directory: the run directory, of a run with `training.log_samples`.
        order: of the run.
        steps: finished ones.
        generated: order of the generated images, where there are such.

    Raises:
        ValueError: a sample is missing, used twice or in another step, naming the first such step.
    """
    used: dict[int, tuple[list[int], list[int]]] = {step: ([], []) for step in range(1, steps + 1)}
    for path in sorted((directory / FOLDER).glob("rank_*.tsv")):
        for line in path.read_text().splitlines():
            step, *columns = line.split("\t")
            if int(step) not in used:
                raise ValueError(f"{path} has step {step}, which is not one of {steps}")
            for ids, column in zip(used[int(step)], columns, strict=False):
                ids += map(int, column.split())
    _compare({step: real for step, (real, _) in used.items()}, order, steps, "")
    counted = {step: [i - order.size for i in ids] for step, (_, ids) in used.items()}
    if generated is None:
        assert not any(counted.values()), "generated images, and no order is given for them"
    else:
        _compare(counted, generated, steps, "generated ")


def _compare(used: dict[int, list[int]], order: Steps, steps: int, kind: str) -> None:
    """Raise at the first step that did not use what the order gives it."""
    for epoch in range(-(-steps // order.steps_per_epoch)):
        due = order.epoch(epoch)["sample"]
        if isinstance(order, Order):
            seen = np.sort(due.reshape(-1))
            assert (seen[1:] != seen[:-1]).all(), "the order gives no sample twice"
        for number, ids in enumerate(due, start=epoch * order.steps_per_epoch + 1):
            if number <= steps and sorted(used[number]) != sorted(ids.tolist()):
                lost = sorted(set(ids.tolist()) - set(used[number]))
                raise ValueError(
                    f"step {number} used {len(used[number])} {kind}samples instead of {len(ids)}; "
                    f"not used: {lost[:5]}"
                )


def _cut_back(path: Path, step: int) -> None:
    """Remove rows of later steps, and a line torn by a kill."""
    keep = 0
    with path.open("rb+") as file:
        for line in file:
            number, tab, _ = line.partition(b"\t")
            if not line.endswith(b"\n") or not tab or int(number) > step:
                break
            keep += len(line)
        file.truncate(keep)
