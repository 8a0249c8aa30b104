"""The exact pixels of a data set in fixed blocks, for validation and certification.

Notable: exact pixels need no decoder of FFCV's and no order, so they are read through NumPy
(.beton) or PIL (sources) whatever the backend of training is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.data.base import BLOCK, DatasetInfo, make_batch
from pipeline.data.content import ContentHash
from pipeline.data.pictures import Pictures
from pipeline.data.workers import Workers
from pipeline.types import Batch


class PictureBlockLoader:
    """`BlockLoader` of pictures that all have the size of the images of `info`."""

    def __init__(self, pictures: Pictures, info: DatasetInfo, workers: int) -> None:
        self.info = info
        self.num_blocks = -(-info.num_samples // BLOCK)
        self._pictures = pictures
        self._workers = Workers(workers)

    def blocks(self, indices: Sequence[int]) -> Iterator[Batch]:
        """The blocks with these numbers, whole, in the order asked."""
        for number in indices:
            assert 0 <= number < self.num_blocks, f"block {number} of {self.num_blocks}"
        return self._workers.ahead(self._build, indices)

    def _build(self, number: int) -> Batch:
        ids = np.arange(number * BLOCK, min((number + 1) * BLOCK, self.info.num_samples))
        images = np.stack([self._pictures.picture(int(index)) for index in ids])
        return make_batch(images.transpose(0, 3, 1, 2), self._pictures.labels[ids], ids)

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Single images to look at, [n, C, H, W] uint8, in the order asked."""
        images = np.stack([self._pictures.picture(index) for index in indices])
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def dataset_sha256(self) -> str:
        """The content hash of all pixels and labels (`content.py`); reads all of them once."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        content = ContentHash()
        for batch in self.blocks(range(self.num_blocks)):
            images = batch.images.permute(0, 2, 3, 1).numpy()
            for label, image in zip(batch.labels.tolist(), images, strict=True):
                content.update(label, image)
        return content.hexdigest()

    def close(self) -> None:
        """End all threads. The loader gives no more blocks."""
        self._workers.close()
