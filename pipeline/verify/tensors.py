"""The tensors of model.safetensors, read with NumPy from the bytes whose hash was checked.

Notable: a reader of its own (8 bytes of length, a JSON header, raw data) because it is stricter
than the format: every byte of the data belongs to exactly one tensor, no name is doubled, every
tensor is float32 and finite. Nothing in the file can be executed. Products of two float32 numbers
neither overflow nor underflow in float64, which the bounds of other modules rely on.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.verify.outward import Float64
from pipeline.verify.refusal import quote, require
from pipeline.verify.strict_json import Record, parse

FLOAT32 = np.dtype("<f4")
LARGEST_HEADER = 16 * 2**20
MOST_AXES = 4


def read_tensors(content: bytes, source: str = "model.safetensors") -> dict[str, Float64]:
    """All tensors by name, as float64 (exact).

    Raises:
        Refusal: not such a file, an overlap or a gap, another type, a value that is not finite.
    """
    require(len(content) >= 8, f"{source} is too short for a safetensors file")
    length = int.from_bytes(content[:8], "little")
    require(
        length <= min(len(content) - 8, LARGEST_HEADER),
        f"{source} has a header longer than it may be",
    )
    header = parse(content[8 : 8 + length], f"{source} (header)")
    header.pop("__metadata__", None)
    spans = []
    for name, values in header.items():
        where = f"{source}: tensor {quote(name)}"
        require(isinstance(values, dict), f"{where} has no description")
        spans.append((*_span(Record(values, where)), name))
    data = memoryview(content)[8 + length :]
    tensors: dict[str, Float64] = {}
    position = 0
    for begin, end, shape, name in sorted(spans, key=lambda span: span[:2]):
        require(
            begin == position and end <= len(data),
            f"{source}: tensor {quote(name)} does not begin where the one before it ends",
        )
        stored = np.frombuffer(data[begin:end], FLOAT32).reshape(shape)
        require(
            bool(np.isfinite(stored).all()),
            f"{source}: tensor {quote(name)} has a value that is not finite",
        )
        tensors[name] = stored.astype(np.float64)
        position = end
    require(position == len(data), f"{source} has bytes that belong to no tensor")
    return tensors


def _span(record: Record) -> tuple[int, int, tuple[int, ...]]:
    """(begin, end, shape) of one float32 tensor, consistent with each other."""
    record.only({"dtype", "shape", "data_offsets"})
    kind = record.text("dtype")
    require(kind == "F32", f"{record.where} is {quote(kind)}, not float32")
    shape = record.shape("shape", tuple(range(1, MOST_AXES + 1)))
    begin, end = record.pair("data_offsets", 0, 2**50)
    require(
        end - begin == math.prod(shape) * FLOAT32.itemsize,
        f"{record.where} has a length that does not fit its shape",
    )
    return begin, end, shape


class TensorStore:
    """The stored tensors, each of which must be taken exactly once."""

    def __init__(self, tensors: dict[str, Float64]) -> None:
        self._tensors = tensors
        self._taken: set[str] = set()

    def take(self, name: str, axes: int) -> Float64:
        """The tensor `name`, which has `axes` axes."""
        require(name in self._tensors, f"model.safetensors has no tensor {quote(name)}")
        require(name not in self._taken, f"tensor {quote(name)} is used by two layers")
        self._taken.add(name)
        tensor = self._tensors[name]
        require(
            tensor.ndim == axes,
            f"tensor {quote(name)} has the shape {list(tensor.shape)}, not {axes} axes",
        )
        return tensor

    def peek(self, name: str) -> Float64:
        """The tensor `name`, not taken yet."""
        require(name in self._tensors, f"model.safetensors has no tensor {quote(name)}")
        return self._tensors[name]

    def all_taken(self) -> None:
        """Refuse tensors that no layer uses."""
        for name in self._tensors:
            require(name in self._taken, f"tensor {quote(name)} is used by no layer")
