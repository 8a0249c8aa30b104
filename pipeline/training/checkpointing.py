"""Saving a run and going on with it: the callback that saves, and `restore`.

Notable: what is saved is a function of the step alone, whatever killed or stopped the run: a run
restored from it ends with the same bits as one that was never stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from pipeline.checkpoint import (
    Checkpoint,
    gather_rng_states,
    load_latest,
    restore_rng_state,
    save_checkpoint,
)
from pipeline.checkpoint.fragments import WholeState
from pipeline.data.base import TrainLoader
from pipeline.distributed import gather_objects, raise_together
from pipeline.progress import say
from pipeline.training.callbacks import Callback, EpochRecord, StepRecord
from pipeline.training.engine import Engine


class Checkpointing(Callback):
    """Saves at the end of every epoch, every `every_steps` steps, and when the run is left.

    Args:
        root: the run's `checkpoints/`.
        engine: holds the model.
        stateful: callbacks whose tensors are saved too, by the name of their part.
        loader: of the training images.
        config: the run's, as plain values; kept for people who read the checkpoint.
        every_steps: 0 for the end of each epoch only.
        keep: newest checkpoints kept.
    """

    def __init__(
        self,
        root: Path,
        engine: Engine,
        stateful: Mapping[str, Callback],
        loader: TrainLoader,
        config: dict[str, Any],
        every_steps: int = 0,
        keep: int = 2,
    ) -> None:
        self._root = root
        self._engine = engine
        self._stateful = stateful
        self._loader = loader
        self._config = config
        self._every = every_steps
        self._keep = keep

    def on_step_end(self, record: StepRecord) -> None:
        """Save if it is time; the last step of an epoch is saved after its epoch is recorded."""
        due = bool(self._every) and record.step % self._every == 0
        if (due or record.leaves) and not record.ends_epoch:
            self.save(record.step)

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Save."""
        self.save(record.step)

    def save(self, step: int) -> None:
        """Write the checkpoint of `step`. A collective.

        Raises:
            RuntimeError: the ranks' buffers differ, or rank 0 could not write.
            OSError: this is rank 0 and it could not write.
        """
        self._check_buffers()
        tensors = cast(dict[str, dict[str, Tensor]], self._engine.state())
        for part, callback in self._stateful.items():
            tensors[part] = callback.tensors()
        tensors["rng"] = gather_rng_states()
        epoch, step_in_epoch = divmod(step, self._loader.steps_per_epoch)
        state = {
            "epoch": epoch,
            "step_in_epoch": step_in_epoch,
            "num_samples": self._loader.info.num_samples,
            "world_size": self._engine.world.size,
            "config": self._config,
        }
        error: Exception | None = None
        if self._engine.world.is_main:
            try:
                save_checkpoint(self._root, Checkpoint(step, tensors, state), self._keep)
            except OSError as failure:
                error = failure
        raise_together(error)

    def restore(self) -> int:
        """Load the newest whole checkpoint into engine and callbacks. A collective.

        Returns:
            Its step; 0 if there is none.

        Raises:
            ValueError: no checkpoint is whole, or it is of another model or other data.
        """
        checkpoint = load_latest(self._root, say)
        if checkpoint is None:
            return 0
        before, now = checkpoint.state["num_samples"], self._loader.info.num_samples
        if before != now:
            raise ValueError(
                f"data.train {self._loader.info.spec} has {now} images, and had {before} when the "
                f"checkpoints in {self._root} were written: restore it, or train under another name"
            )
        self._engine.load_state(WholeState(checkpoint.tensors))
        for part, callback in self._stateful.items():
            callback.load_tensors(checkpoint.tensors[part])
        restore_rng_state(checkpoint.tensors["rng"], self._engine.world.rank)
        return checkpoint.step

    def _check_buffers(self) -> None:
        """The power-iteration vectors of all ranks must be equal: only rank 0's are saved."""
        digests = {
            name: hashlib.sha256(buffer.detach().cpu().numpy().tobytes()).hexdigest()
            for name, buffer in self._engine.module.named_buffers()
        }
        everywhere = gather_objects(digests)
        for rank, theirs in enumerate(everywhere):
            for name, digest in theirs.items():
                if digest != everywhere[0][name]:
                    raise RuntimeError(
                        f"buffer {name!r} of rank {rank} differs from rank 0's: the ranks did not "
                        "compute the same; the checkpoint was not written"
                    )
