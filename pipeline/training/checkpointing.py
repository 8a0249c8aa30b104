"""Saving a run and going on with it: the callback that saves, and `restore`.

Notable:
- What is saved is a function of the step alone, whatever killed or stopped the run: a run restored
  from it ends with the same bits as one that was never stopped.
- Training stands still for a copy in memory only. Threads write it while the next steps run; the
  callback says so by `busy`, and goes on with the save in a step in which no rank's thread is busy.
- The run is left with its last save committed, unless it is left by an exception.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Saver, gather_rng_states, load_latest, restore_rng_state
from pipeline.data.base import TrainLoader
from pipeline.distributed import gather_objects, together
from pipeline.progress import say
from pipeline.training.callbacks import Callback, EpochRecord, StepRecord
from pipeline.training.engine import Engine


class Checkpointing(Callback):
    """Saves at the end of every epoch, as often as is asked for, and when the run is left.

    Args:
        root: the run's `checkpoints/`.
        engine: holds the model.
        stateful: callbacks whose tensors are saved too, by the name of their part.
        loader: of the training images.
        config: the run's, as plain values; kept for people who read the checkpoint.
        every_steps: 0 for the end of each epoch only.
        keep: newest checkpoints kept.
        every_minutes: since the last save began, by rank 0's clock; 0 for never.
        keep_best: best checkpoints kept beside the newest, by the validation of their epoch.
        records: callbacks whose files a checkpoint implies: they are on the disk before it.
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
        every_minutes: float = 0,
        keep_best: int = 1,
        records: Sequence[Callback] = (),
    ) -> None:
        self._root = root
        self._engine = engine
        self._stateful = stateful
        self._loader = loader
        self._config = config
        self._records = records
        self._every = every_steps
        self._seconds = 60 * every_minutes
        self._began = time.monotonic()
        self._leaves = False
        self._saver = Saver(root, engine.world, keep, keep_best)

    def on_start(self, step: int) -> None:
        """The minutes count from here."""
        self._began = time.monotonic()

    def busy(self) -> bool:
        """This rank is still writing."""
        return self._saver.busy

    def due(self) -> bool:
        """The minutes are over, by the clock of rank 0."""
        if not self._seconds or not self._engine.world.is_main or self._saver.is_open:
            return False
        return time.monotonic() - self._began >= self._seconds

    def on_step_end(self, record: StepRecord) -> None:
        """Go on with an open save; save if it is time.

        The last step of an epoch is saved after its epoch is recorded.
        """
        if not record.busy:
            self._saver.advance()
        self._leaves = record.leaves
        due = record.due or (bool(self._every) and record.step % self._every == 0)
        if (due or record.leaves) and not record.ends_epoch:
            self.save(record.step)

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Save, with the validation of these weights."""
        self.save(record.step, record.numbers.get("validation"))

    def save(self, step: int, validation: dict[str, Any] | None = None) -> None:
        """Begin the checkpoint of `step`; in the last step of the run, also finish it.

        A collective. An open save is waited for.

        Args:
            step: finished steps.
            validation: numbers of the weights as they are now; by its `vra_estimate` the best
                checkpoints are known.

        Raises:
            RuntimeError: the ranks' buffers differ.
            OSError: a rank could not write this checkpoint or the one before; on all ranks.
        """
        self.finish()
        self._check_buffers()
        with together():
            for callback in self._records:
                callback.sync()
        self._began = time.monotonic()
        parts = dict(self._engine.state())
        on_all_ranks = {part: callback.tensors() for part, callback in self._stateful.items()}
        on_all_ranks["rng"] = gather_rng_states()
        if self._engine.world.is_main:
            for part, tensors in on_all_ranks.items():
                parts[part] = {name: tensor.clone() for name, tensor in tensors.items()}
        epoch, step_in_epoch = divmod(step, self._loader.steps_per_epoch)
        state = {
            "epoch": epoch,
            "step_in_epoch": step_in_epoch,
            "num_samples": self._loader.info.num_samples,
            "world_size": self._engine.world.size,
            "validation": validation,
            "config": self._config,
        }
        self._saver.begin(step, parts, state)
        if self._leaves:
            self.finish()

    def finish(self) -> None:
        """Wait until what was saved is on the disk. A collective."""
        self._saver.finish()

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
        self._engine.load_state(checkpoint.tensors)
        for part, callback in self._stateful.items():
            callback.load_tensors(checkpoint.tensors.part(part))
        restore_rng_state(checkpoint.tensors, self._engine.world.rank)
        return checkpoint.step

    def _check_buffers(self) -> None:
        """The power-iteration vectors of all ranks must be equal: only rank 0's are saved."""
        digests = {
            name: hashlib.sha256(buffer.detach().cpu().numpy().tobytes()).hexdigest()
            for name, buffer in self._engine.module.named_buffers()
        }
        summary = hashlib.sha256(repr(digests).encode()).hexdigest()
        if len(set(gather_objects(summary))) == 1:
            return
        everywhere = gather_objects(digests)
        for rank, theirs in enumerate(everywhere):
            for name, digest in theirs.items():
                if digest != everywhere[0][name]:
                    raise RuntimeError(
                        f"buffer {name!r} of rank {rank} differs from rank 0's: the ranks did not "
                        "compute the same; the checkpoint was not written"
                    )
        raise AssertionError("the summaries differ, the buffers do not")
