"""FFCV's writer, made to end: with our progress bar, and with an error where FFCV would wait.

Notable: FFCV 1.0 waits for ever when a picture cannot be read or a worker dies. Here the first
error in any worker comes back as a ValueError and the others are ended. The private parts used are
`DatasetWriter.prepare`, `finalize`, `metadata_sm` and `worker_job_indexed_dataset`.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing as mp
import time
from multiprocessing.context import ForkContext, ForkProcess
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from ffcv.fields import IntField, NDArrayField, RGBImageField
from ffcv.memory_allocator import MemoryAllocator
from ffcv.writer import MIN_PAGE_SIZE, DatasetWriter, worker_job_indexed_dataset

from pipeline.data.workers import torch_threads_kept
from pipeline.progress import ProgressBar

POLL_SECONDS = 0.02
SAMPLES_PER_WORKER = 32


class Samples(Protocol):
    """What is written: (image [H, W, C] uint8, label) by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int]: ...


def write_samples(path: Path, samples: Samples, jpeg_quality: int | None, workers: int) -> None:
    """Write all samples to `path`.

    Args:
        path: overwritten.
        samples: read in worker processes; three channels, or all of one shape.
        jpeg_quality: of three-channel images; None stores pixels.
        workers: processes.

    Raises:
        ValueError: a sample could not be read or stored, naming it as its own error did.
    """
    image, _ = samples[0]
    if image.shape[2] == 3:
        mode = "raw" if jpeg_quality is None else "jpg"
        field = RGBImageField(write_mode=mode, jpeg_quality=jpeg_quality or 0)
    else:
        field = NDArrayField(np.dtype("u1"), image.shape)
    fields = {"image": field, "label": IntField()}
    with torch_threads_kept():
        # Every worker opens pages of its own, so a small set is written by few.
        useful = -(-len(samples) // SAMPLES_PER_WORKER)
        _Writer(str(path), fields, page_size=MIN_PAGE_SIZE, num_workers=min(workers, useful)).write(
            samples
        )


class _Writer(DatasetWriter):
    """`DatasetWriter` with a loop that watches its workers."""

    def write(self, samples: Samples) -> None:
        """Write all samples, in order of index."""
        context = mp.get_context("fork")
        self.num_samples = len(samples)
        self.prepare()
        try:
            allocations = self._run_workers(context, samples)
            self.finalize(allocations)
        finally:
            self.metadata_sm.close()
            self.metadata_sm.unlink()

    def _run_workers(self, context: ForkContext, samples: Samples) -> list[Any]:
        chunks, allocations = context.Queue(), context.Queue()
        errors, done = context.SimpleQueue(), context.Value(ctypes.c_uint64, 0)
        size = max(1, min(100, self.num_samples // (4 * self.num_workers)))
        for start in range(0, self.num_samples, size):
            stop = min(start + size, self.num_samples)
            chunks.put([(index, index) for index in range(start, stop)])
        for _ in range(self.num_workers):
            chunks.put(None)
        allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
        arguments = (
            chunks, self.metadata_sm, self.metadata_type, self.fields, allocator, done,
            allocations, _Reporting(samples, errors),
        )  # fmt: skip
        workers = [
            context.Process(target=worker_job_indexed_dataset, args=arguments, daemon=True)
            for _ in range(self.num_workers)
        ]
        for worker in workers:
            worker.start()
        try:
            with ProgressBar("write", total=self.num_samples, unit="img") as bar:
                shown = 0
                while shown < self.num_samples:
                    _raise_first(errors, workers)
                    time.sleep(POLL_SECONDS)
                    now = int(done.value)
                    bar.advance(now - shown)
                    shown = now
            found: list[list[Any]] = []
            while len(found) < len(workers):
                _raise_first(errors, workers)
                if not allocations.empty():
                    found.append(allocations.get())
                else:
                    time.sleep(POLL_SECONDS)
            return [entry for part in found for entry in part]
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()


class _Reporting:
    """Samples whose errors are reported to the parent before they end the worker."""

    def __init__(self, samples: Samples, errors: Any) -> None:
        self._samples, self._errors = samples, errors

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        try:
            return self._samples[int(index)]
        except Exception as error:
            self._errors.put(str(error))
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(3600)  # the parent ends this process; leaving would print a traceback
            raise


def _raise_first(errors: Any, workers: list[ForkProcess]) -> None:
    """Raise what a worker reported, or that one died."""
    if not errors.empty():
        raise ValueError(errors.get())
    for worker in workers:
        if worker.exitcode not in (None, 0):
            raise ValueError(
                f"a writing process ended with status {worker.exitcode}: if it was killed for "
                "memory, give fewer --workers"
            )
