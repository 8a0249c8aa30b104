"""One safetensors file: whole tensors, or fragments of them, written from memory and found again.

Notable:
- The layout is that of the safetensors format (github.com/huggingface/safetensors): eight bytes of
  header length, a JSON header, the values. It is written here, not by the library, to go from the
  tensors to the disk without a second copy; the library reads the files (a test does).
- A fragment is stored as a flat tensor. Where it belongs stands in the header's metadata:
  {"fragments": '{"name": [start, [shape of the whole tensor]]}'}.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoint.files import DamagedError, unreadable
from pipeline.checkpoint.fragments import Fragment, Part

SUFFIX = ".safetensors"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredRun:
    """A run of one tensor's flattened values, and where in which file it lies."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: int
    """Position of the first value in the whole tensor."""
    stop: int
    """Position behind the last value."""
    file: str
    """Name in the checkpoint's directory."""
    offset: int
    """Of the first value in the file, in bytes."""


def content(tensors: Part) -> Iterator[bytes | memoryview]:
    """The bytes of a file, piece by piece: the header, then the values of each tensor.

    Args:
        tensors: on the CPU; not changed until the last piece is taken.
    """
    values = {
        name: entry.values if isinstance(entry, Fragment) else entry
        for name, entry in tensors.items()
    }
    # Widest values first, so that each lies at a multiple of its width.
    names = sorted(values, key=lambda name: (-values[name].element_size(), name))
    header: dict[str, Any] = {}
    fragments = {n: [e.start, e.shape] for n, e in tensors.items() if isinstance(e, Fragment)}
    if fragments:
        header["__metadata__"] = {"fragments": json.dumps(fragments)}
    offset = 0
    for name in names:
        tensor = values[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield _LENGTH.pack(len(text)) + text
    for name in names:
        yield _bytes_of(values[name])


def stored_runs(folder: Path, file: str) -> list[StoredRun]:
    """What a file holds and where; only its header is read.

    Raises:
        DamagedError: it is no such file, or lost.
        OSError: it cannot be read at the moment.
    """
    try:
        with (folder / file).open("rb") as stream:
            (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
            header = json.loads(stream.read(length))
        metadata = header.pop("__metadata__", {})
        fragments = json.loads(metadata.get("fragments", "{}"))
        size = (folder / file).stat().st_size
        return [
            _run(file, name, entry, fragments.get(name), _LENGTH.size + length, size)
            for name, entry in header.items()
        ]
    except OSError as error:
        raise unreadable(folder / file, error) from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"{file} is not a tensor file") from None


def _run(file: str, name: str, entry: Any, fragment: Any, base: int, size: int) -> StoredRun:
    """One entry of a header; ValueError if its numbers do not fit together."""
    dtype = _DTYPES[entry["dtype"]]
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    count = math.prod(shape)
    start, whole = (0, shape) if fragment is None else (fragment[0], tuple(fragment[1]))
    if not (
        0 <= begin <= end <= size - base
        and end - begin == count * dtype.itemsize
        and 0 <= start <= start + count <= math.prod(whole)
    ):
        raise ValueError(name)
    return StoredRun(name, dtype, whole, start, start + count, file, base + begin)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The values in row-major order, as they lie in memory."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
