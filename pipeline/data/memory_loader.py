"""Training batches without FFCV: the same order and the same kernels over pictures in memory.

Notable: for the same stored pixels the batches equal the FFCV loader's to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import pipeline.data.kernels as kernels
from pipeline.config import AugmentationConfig
from pipeline.data.augmentation import after_crop, cropping
from pipeline.data.base import DatasetInfo, make_batch
from pipeline.data.order import Steps
from pipeline.data.pictures import Pictures
from pipeline.data.workers import Workers
from pipeline.distributed import World
from pipeline.types import Batch


class MemoryTrainLoader:
    """`TrainLoader` of any data set.

    Args:
        pictures: the data; no picture is smaller than the images of `info`.
        workers: threads; each builds a whole batch.
    """

    def __init__(
        self,
        pictures: Pictures,
        info: DatasetInfo,
        order: Steps,
        world: World,
        augmentation: AugmentationConfig,
        workers: int,
    ) -> None:
        self.info = info
        self.steps_per_epoch = order.steps_per_epoch
        self._pictures, self._order, self._world = pictures, order, world
        self._cropping = cropping(augmentation)
        self._after_crop = after_crop(augmentation, info.image_shape[1])
        self._workers = Workers(workers)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This rank's share of each global batch of an epoch, in order, from `start_step` on."""
        steps = self._order.epoch(epoch, start_step, self._world.rank, self._world.size)
        return self._workers.ahead(self._build, steps)

    def _build(self, step: npt.NDArray[Any]) -> Batch:
        """The batch of one row [B] of the order."""
        samples, keys = step["sample"].astype(np.int64), np.ascontiguousarray(step["key"])
        channels, size, _ = self.info.image_shape
        images = np.empty((len(samples), size, size, channels), np.uint8)
        for sample, key, image in zip(samples, keys, images, strict=True):
            kernels.cut(self._pictures.picture(int(sample)), key, *self._cropping, image)
        for kernel in self._after_crop:
            kernel(images, keys)
        return make_batch(images.transpose(0, 3, 1, 2), self._pictures.labels[samples], samples)

    def close(self) -> None:
        """End all threads. The loader gives no more batches."""
        self._workers.close()
