"""FFCV operations that read the order as data: each sample brings the key of its augmentation.

Notable:
- FFCV hands every operation its slice of the order untouched, so a record array (sample, key) can
  take the place of plain indices, and nothing has to be compiled again when the epoch changes.
- The operations are plain functions around our own kernels. FFCV's compiler is switched off while
  the loader is made (`ffcv_loader.py`): it compiles with fastmath, and differently for one worker
  and for many.
- JPEGs are decoded by FFCV's libjpeg-turbo binding, called through ctypes, which releases the GIL.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from ffcv import libffcv
from ffcv.fields import RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State

import pipeline.data.kernels as kernels
from pipeline.config import AugmentationConfig
from pipeline.data.augmentation import after_crop, cropping
from pipeline.data.direct import DirectFile
from pipeline.data.workers import Workers

_JPEG = 0  # FFCV's mode of an image: 0 JPEG, 1 raw

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Stored:
    """Where the pictures of the file lie: all [N]."""

    offsets: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    is_jpeg: npt.NDArray[np.bool_]


class AugmentedPictures(Operation):
    """Reads, crops and augments pictures of an RGB field or of an NDArray field [H, W, C].

    Gives images [n, C, size, size] uint8.

    Args:
        samples: [N], which samples of the file the ids of the order mean; None for all.
        direct: the same file, to be read past the page cache.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        augmentation: AugmentationConfig,
        workers: Workers,
        samples: npt.NDArray[np.int64] | None = None,
        direct: DirectFile | None = None,
    ) -> None:
        super().__init__()
        self._shape = (size, size, channels)
        self._cropping = cropping(augmentation)
        self._after_crop = after_crop(augmentation, size)
        self._workers = workers
        self._samples, self._direct = samples, direct

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Images [C, size, size] a sample."""
        size, _, channels = self._shape
        shape, dtype = (channels, size, size), np.dtype("u1")
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=dtype)
        return state, AllocationQuery(shape, dtype)

    @cached_property
    def _stored(self) -> _Stored:
        if isinstance(self.field, RGBImageField):
            return _Stored(
                self.metadata["data_ptr"].astype(np.int64),
                self.metadata["height"].astype(np.int64),
                self.metadata["width"].astype(np.int64),
                self.metadata["mode"] == _JPEG,
            )
        count, (height, width, _) = len(self.metadata), self.field.shape
        return _Stored(
            self.metadata.astype(np.int64),
            np.full(count, height, np.int64),
            np.full(count, width, np.int64),
            np.zeros(count, np.bool_),
        )

    def generate_code(self) -> Callable[..., Array]:
        """FFCV calls the result with its slice of the order and the memory asked for."""

        def read(order: Array, out: Array, metadata: Array, storage: tuple[Array, ...]) -> Array:
            samples = np.ascontiguousarray(order["sample"])
            if self._samples is not None:
                samples = self._samples[samples].astype(np.uint64)
            keys = np.ascontiguousarray(order["key"])

            def work(part: slice) -> None:
                images = np.empty((len(samples[part]), *self._shape), np.uint8)
                self._crop(samples[part], keys[part], storage, images)
                for kernel in self._after_crop:
                    kernel(images, keys[part])
                out[part] = images.transpose(0, 3, 1, 2)

            self._workers.in_parts(work, len(order))
            return out

        return read

    def _crop(self, samples: Array, keys: Array, storage: tuple[Array, ...], images: Array) -> None:
        """Read the pictures of `samples` and crop them into `images`."""
        stored = self._stored
        if self._direct is None and not stored.is_jpeg[samples].any():
            where = (stored.offsets, stored.heights, stored.widths)
            kernels.cut_stored(storage[0], *where, samples, keys, *self._cropping, images)
            return
        for i, sample in enumerate(samples):
            kernels.cut(self._picture(sample, storage), keys[i], *self._cropping, images[i])

    def _picture(self, sample: int, storage: tuple[Array, ...]) -> Array:
        """The pixels [h, w, C] of one sample, read-only."""
        file, starts, lengths = storage
        stored = self._stored
        start = int(stored.offsets[sample])
        shape = (int(stored.heights[sample]), int(stored.widths[sample]), self._shape[2])
        if stored.is_jpeg[sample]:
            length = int(lengths[np.searchsorted(starts, np.uint64(start))])
        else:
            length = math.prod(shape)
        if self._direct is None:
            data = file[start : start + length]
        else:
            data = self._direct.read(start, length)
        if stored.is_jpeg[sample]:
            return decode_jpeg(data, shape, sample)
        picture = data.reshape(shape)
        picture.flags.writeable = False  # one type, so that numba compiles `cut` once
        return picture


def decode_jpeg(data: Array, shape: tuple[int, int, int], sample: int) -> Array:
    """The pixels [h, w, 3] of a JPEG; ValueError if libjpeg-turbo finds it damaged."""
    picture = np.empty(shape, np.uint8)
    height, width, _ = shape
    whole = (height, width, 0, 0, 1, 1, False, False)  # no crop, no scaling, no flip
    status = libffcv.ctypes_imdecode(
        data.ctypes.data, len(data), height, width, picture.ctypes.data, *whole
    )
    if status != 0:
        raise ValueError(f"the JPEG of sample {sample} is damaged: write the file again")
    picture.flags.writeable = False
    return picture


class Labels(IntDecoder):
    """The label of each sample, [n, 1].

    Args:
        labels: [N] by sample id.
    """

    def __init__(self, labels: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self._labels = labels

    def generate_code(self) -> Callable[..., Array]:
        """FFCV calls the result with its slice of the order and the memory asked for."""

        labels = self._labels

        def read(order: Array, out: Array, metadata: Array, storage: tuple[Array, ...]) -> Array:
            out[:, 0] = labels[order["sample"]]
            return out

        return read


class SampleIds(IntDecoder):
    """The id of each sample, [n, 1]: the order itself, as one more output."""

    def generate_code(self) -> Callable[..., Array]:
        """FFCV calls the result with its slice of the order and the memory asked for."""

        def read(order: Array, out: Array, labels: Array, storage: tuple[Array, ...]) -> Array:
            out[:, 0] = order["sample"]
            return out

        return read
