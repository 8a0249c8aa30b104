"""Training batches from a .beton file through FFCV.

Notable:
- One FFCV `Loader` for the whole run. Each epoch is an iterator over our own order, so FFCV's
  traversal orders, its random numbers and its `distributed` mode (which pads) are not used.
- FFCV gives the file, the JPEG decoder and a thread that works ahead; pixels and order are ours
  (`kernels.py`, `order.py`), hence equal to the memory loader's to the bit.
- An error in the thread is raised by the consumer's `next`. Closing, or leaving the epoch early,
  ends the thread.
- Private parts of FFCV 1.0 used here, each covered by a test: `EpochIterator.run`,
  `run_pipeline`, `iter_ixes`, `terminate_event`, `output_queue`; `Compiler.set_enabled`; the memory
  manager's tables.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ffcv.loader import Loader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.pipeline import PipelineSpec
from ffcv.pipeline.compiler import Compiler

from pipeline.config import DataConfig
from pipeline.data.base import DatasetInfo, make_batch
from pipeline.data.direct import DirectFile
from pipeline.data.ops import AugmentedPictures, Labels, SampleIds
from pipeline.data.order import Steps, share
from pipeline.data.workers import Workers, torch_threads_kept
from pipeline.distributed import World
from pipeline.types import Batch

BATCHES_AHEAD = 3
_POLL_SECONDS = 0.05


class FfcvTrainLoader:
    """`TrainLoader` of a .beton file.

    Args:
        path: a complete file with the fields `image` and `label`; no picture is smaller than the
            images of `info`, unless they are resized.
        labels: [N] by sample id.
        samples: [N], where sample ids count only some of the file's samples: which those are.
        workers: threads that decode and augment.
    """

    def __init__(
        self,
        path: str,
        labels: npt.NDArray[np.int64],
        samples: npt.NDArray[np.int64] | None,
        info: DatasetInfo,
        order: Steps,
        world: World,
        data: DataConfig,
        workers: int,
    ) -> None:
        self.info = info
        self.steps_per_epoch = order.steps_per_epoch
        self._order, self._world = order, world
        self._workers = Workers(workers)
        self._running: weakref.WeakSet[_Epoch] = weakref.WeakSet()
        channels, size, _ = info.image_shape
        direct = DirectFile(Path(path)) if data.reading == "direct" else None
        pictures = AugmentedPictures(
            size, channels, data.augmentation, self._workers, samples, direct
        )
        first, last = share(order.batch_size, world.rank, world.size)
        self._ffcv = _open(path, last - first, pictures, Labels(labels))

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This rank's share of each global batch of an epoch, in order, from `start_step` on."""
        keys = self._order.epoch(epoch, start_step, self._world.rank, self._world.size)
        return self._iterate(keys.reshape(-1))

    def _iterate(self, keys: npt.NDArray[Any]) -> Iterator[Batch]:
        iterator = _Epoch(self._ffcv, keys)
        self._running.add(iterator)
        with contextlib.closing(iterator):
            yield from iterator

    def close(self) -> None:
        """End all threads. The loader gives no more batches."""
        for iterator in list(self._running):
            iterator.close()
        self._workers.close()


def _open(path: str, batch_size: int, pictures: AugmentedPictures, labels: Labels) -> Loader:
    """FFCV's loader of three outputs: images, labels, sample ids."""
    Compiler.set_enabled(False)  # the operations are plain functions
    try:
        with torch_threads_kept():
            loader = Loader(
                path,
                batch_size,
                num_workers=1,  # the operations bring their own threads
                os_cache=True,
                seed=0,  # unused; without it FFCV draws one from NumPy's global generator
                drop_last=False,
                batches_ahead=BATCHES_AHEAD,
                pipelines={
                    "image": PipelineSpec("image", decoder=pictures, transforms=[]),
                    "label": PipelineSpec("label", decoder=labels, transforms=[]),
                    "sample_id": PipelineSpec("label", decoder=SampleIds(), transforms=[]),
                },
            )
    finally:
        Compiler.set_enabled(True)
    # Only FFCV's own cache reads these tables: half a kilobyte a sample, 600 MB for ImageNet.
    manager = loader.memory_manager
    manager.ptr_to_size = manager.sample_to_pages = manager.page_to_samples = None
    return loader


class _Epoch(EpochIterator):
    """FFCV's thread over an order of our own. Gives batches; hands errors on; ends when closed."""

    def run(self) -> None:
        """Build batches to the end of the order, or until closed. The thread's body."""
        try:
            for number, keys in enumerate(self.iter_ixes):
                # Always slot 0 of the buffers: the batch is copied before the next one is begun.
                images, labels, ids = self.run_pipeline(number, keys, 0, None)
                if not self._hand_over(make_batch(images, labels[:, 0], ids[:, 0])):
                    return
            self._hand_over(None)
        except BaseException as error:  # every error, so that the consumer cannot wait for ever
            error.add_note(f"while reading {self.loader.fname}")
            self._hand_over(error)

    def _hand_over(self, item: Batch | BaseException | None) -> bool:
        """Wait for room in the queue; False when the epoch was closed meanwhile."""
        while not self.terminate_event.is_set():
            with contextlib.suppress(queue.Full):
                self.output_queue.put(item, timeout=_POLL_SECONDS)
                return True
        return False

    def __next__(self) -> Batch:
        while not self.terminate_event.is_set():
            try:
                item = self.output_queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if self.is_alive() or not self.output_queue.empty():
                    continue
                raise RuntimeError(f"the thread that reads {self.loader.fname} is gone") from None
            if isinstance(item, Batch):
                return item
            self.close()
            if item is not None:
                raise item
        raise StopIteration

    def close(self) -> None:
        """End the thread: at once, or when the batch that it is building is done."""
        self.terminate_event.set()
        if threading.current_thread() is not self and self.is_alive():
            self.join()
