"""What happens beside a training step: the records that the loop hands out, and who takes them.

Notable: callbacks are called in the order given, so a later one sees what an earlier one added to
the epoch's numbers; the one that saves checkpoints comes last and so saves a finished row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.objectives.base import Losses
from pipeline.types import Batch


@dataclass(frozen=True)
class StepRecord:
    """One finished step; numbers are of the global batch and equal on all ranks."""

    step: int
    """Steps finished since the beginning of the run, this one included."""
    epoch: int
    """Epoch of this step, from 0."""
    images: int
    """Size of the global batch."""
    loss: float
    """Mean of the per-sample losses."""
    metrics: dict[str, float]
    """Means of the objective's per-sample metrics; `correct` is the clean accuracy."""
    epsilon: float
    learning_rate: float
    lipschitz: float | None
    """K, the largest margin Lipschitz constant, as estimated in the forward of this step; None
    where the model is no classifier."""
    layer_lipschitz: list[float]
    """Estimate of each normed layer, in network order."""
    gradient_norm: float
    """Before clipping."""
    ends_epoch: bool
    """It is the last step of its epoch; `on_epoch_end` follows."""
    leaves: bool
    """The run is left after this step, finished or not."""
    busy: int = 0
    """Callbacks, over all ranks, whose threads were at work in this step."""
    due: bool = False
    """A callback of a rank said that it is time to save."""
    by_origin: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Where batches are mixed: `loss` and the metrics of the `real` and of the `generated` images,
    means over each part of the global batch. Otherwise empty."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of this rank, by part of the step (`pipeline.stopwatch`), since the record before. On a GPU
    a part that is still running is counted in the next."""


@dataclass
class EpochRecord:
    """One finished epoch; callbacks add their numbers for those that come after them."""

    step: int
    """Steps finished since the beginning of the run."""
    epoch: int
    """The epoch that ended, from 0."""
    last: bool
    """No epoch comes after it."""
    numbers: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    """By name, [3, height, width] uint8, for TensorBoard."""


class Callback:
    """Does nothing; override what is needed. Every rank has the same callbacks."""

    def on_start(self, step: int) -> None:
        """The run begins, or goes on after `step` finished steps."""

    def on_micro_batch(self, batch: Batch, losses: Losses) -> None:
        """This rank's part of a micro-batch went forward; on the device, before the update."""

    def busy(self) -> bool:
        """A thread of this callback is at work; all ranks hear of it as `StepRecord.busy`."""
        return False

    def due(self) -> bool:
        """It is time to save; all ranks hear of it as `StepRecord.due`."""
        return False

    def on_step_end(self, record: StepRecord) -> None:
        """The weights were updated."""

    def on_epoch_end(self, record: EpochRecord) -> None:
        """The last step of an epoch is done."""

    def sync(self) -> None:
        """A checkpoint follows: what was written must be on the disk before it."""

    def on_end(self) -> None:
        """The run is left, also by an exception: close files."""

    def tensors(self) -> dict[str, Tensor]:
        """State that a checkpoint carries, equal on all ranks; a collective.

        Rank 0's is saved: the others may give nothing.
        """
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
