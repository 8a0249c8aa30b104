"""The tensors of a checkpoint on disk, read in any pieces from however many files.

Notable: it holds an index only. What is asked for is read from the files that have it, straight
into its place; nobody reads a tensor that it does not need.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.checkpoint.files import DamagedError
from pipeline.checkpoint.fragments import SavedState
from pipeline.checkpoint.tensor_file import StoredRun


class ShardedState(SavedState):
    """Reads the files of a checkpoint that was verified.

    Args:
        folder: the checkpoint's directory.
        runs: of all files, by part, in any order.

    Raises:
        DamagedError: they do not make up whole tensors, each value once.
    """

    def __init__(self, folder: Path, runs: Mapping[str, Iterable[StoredRun]]) -> None:
        self._folder = folder
        self._index: dict[str, dict[str, list[StoredRun]]] = {}
        for part, stored in runs.items():
            tensors = self._index.setdefault(part, {})
            for run in stored:
                tensors.setdefault(run.name, []).append(run)
            for found in tensors.values():
                found.sort(key=lambda run: (run.start, run.stop))
                _check_whole(part, found)

    def names(self, part: str) -> list[str]:
        """See `SavedState.names`."""
        return sorted(self._index.get(part, {}))

    def shape(self, part: str, name: str) -> tuple[int, ...]:
        """See `SavedState.shape`."""
        return self._index[part][name][0].shape

    def piece(self, part: str, name: str, start: int, stop: int) -> Tensor:
        """See `SavedState.piece`.

        Raises:
            OSError: a file cannot be read, or no longer has what it had when it was verified.
        """
        runs = self._index[part][name]
        assert 0 <= start <= stop <= math.prod(runs[0].shape), "a piece lies within"
        values = torch.empty(stop - start, dtype=runs[0].dtype)
        room = values.view(torch.uint8).numpy().data
        width = values.element_size()
        for run in runs:
            first, last = max(start, run.start), min(stop, run.stop)
            if first < last:
                into = room[(first - start) * width : (last - start) * width]
                self._read(run.file, run.offset + (first - run.start) * width, into)
        return values

    def _read(self, file: str, offset: int, into: memoryview) -> None:
        """Fill `into` with the bytes of a file from `offset` on."""
        path = self._folder / file
        with path.open("rb", buffering=0) as stream:
            stream.seek(offset)
            while into:
                count = stream.readinto(into)
                if not count:
                    raise OSError(f"{path} was cut short after it had been verified")
                into = into[count:]


def _check_whole(part: str, runs: list[StoredRun]) -> None:
    """Raise unless the runs of one tensor, in order, cover it without overlap."""
    name, shape, dtype = runs[0].name, runs[0].shape, runs[0].dtype
    label, size, reached = f"{part} tensor {name!r}", math.prod(shape), 0
    for run in runs:
        if (run.shape, run.dtype) != (shape, dtype):
            raise DamagedError(
                f"{run.file} has another shape or type of {label} than {runs[0].file}"
            )
        if run.start == run.stop:
            continue
        if run.start < reached:
            raise DamagedError(f"{run.file} has values of {label} that another file has too")
        if run.start > reached:
            raise DamagedError(f"values {reached} to {run.start - 1} of {label} are in no file")
        reached = run.stop
    if reached < size:
        raise DamagedError(f"values {reached} to {size - 1} of {label} are in no file")
