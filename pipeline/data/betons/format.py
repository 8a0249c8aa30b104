"""FFCV's .beton format, and reading it through NumPy: labels, and pictures stored as raw pixels.

Notable:
- FFCV is not needed. Validation and certification read raw pixels only, and a machine without FFCV
  can train from them. `writer.py` writes the same records; tests hold both against FFCV.
- A file is: header, field descriptions, one record a sample, then pages of pixels or JPEGs, of
  which none crosses the end of its page, then the allocation table (sample, place, length).
- A file that is not whole is refused when it is opened: FFCV would read beyond its end.
- Beside `x.beton` lies `x.beton.json`, the data card (class names, counts, content hash). The
  pixels and labels are always those of the .beton itself.
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("table", "<u8"),  # place of the allocation table; written last
    ],
    align=True,
)
FIELD = np.dtype([("type", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)], align=True)
TABLE_ENTRY = np.dtype([("sample", "<u8"), ("place", "<u8"), ("length", "<u8")])
INT, RGB, NDARRAY = 1, 2, 4
"""Types of fields."""
RGB_RECORD = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("place", "<u8")])
JPEG, RAW = 0, 1
"""Modes of a picture in an RGB field."""
MOST_CLASSES = 1_000_000
"""A label beyond this is damage."""
_RECORDS: dict[int, Any] = {INT: "<i8", RGB: RGB_RECORD, NDARRAY: "<u8"}


def record_type(fields: dict[str, int]) -> np.dtype[Any]:
    """The record of one sample, of fields {name: type} in order."""
    return np.dtype([(name, _RECORDS[kind]) for name, kind in fields.items()], align=True)


def array_arguments(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """How an NDARRAY field describes uint8 arrays of a shape, [1024] uint8."""
    lengths = np.zeros(32, "<u8")
    lengths[: len(shape)] = shape
    type_text = b'[["", "|u1"]]'
    described = lengths.tobytes() + np.array(len(type_text), "<u8").tobytes() + type_text
    return np.frombuffer(described.ljust(1024, b"\0"), np.uint8)


def card_path(beton: Path) -> Path:
    """Where the data card of a .beton file lies."""
    return beton.with_name(beton.name + ".json")


class BetonFile:
    """An open file with the fields `image` (RGB, or uint8 arrays [H, W, C]) and `label`.

    Raises:
        ValueError: the file is missing, not such a file, or not whole.
    """

    path: Path
    labels: npt.NDArray[np.int64]
    """[N]."""
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    """[N], of the stored pictures."""
    channels: int
    class_names: tuple[str, ...]
    is_raw: npt.NDArray[np.bool_]
    """[N], stored as pixels, not as JPEG."""
    is_exact: bool
    """No picture was compressed with loss."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ValueError(f"data file {path} does not exist: write it with tools/write_beton.py")
        size = path.stat().st_size
        if size < HEADER.itemsize:
            raise self._incomplete()
        self._bytes = np.memmap(path, np.uint8, "r")
        header = self._view(0, HEADER, 1)[0]
        count = int(header["num_samples"])
        if header["version"] != VERSION or header["num_fields"] != 2 or count == 0:
            raise ValueError(f"{path} is not a .beton file with the fields image and label")
        # The table is written at the end of the file and its place last of all.
        if header["table"] == 0 or size < int(header["table"]) + TABLE_ENTRY.itemsize * count:
            raise self._incomplete()
        self._table = int(header["table"])
        self._read_fields(count)
        self.class_names = self._names_of_classes()

    def _read_fields(self, count: int) -> None:
        fields = self._view(HEADER.itemsize, FIELD, 2)
        names = [bytes(field["name"]).rstrip(b"\0").decode("ascii", "replace") for field in fields]
        kinds = {name: int(field["type"]) for name, field in zip(names, fields, strict=True)}
        if kinds.get("label") != INT or kinds.get("image") not in (RGB, NDARRAY):
            raise ValueError(
                f"{self.path} has the fields {kinds}, not an image and an integer label"
            )
        samples = self._view(HEADER.itemsize + fields.nbytes, record_type(kinds), count)
        self.labels = samples["label"].astype(np.int64)
        image = samples["image"]
        if kinds["image"] == NDARRAY:
            arguments = fields[names.index("image")]["arguments"]
            height, width, channels = arguments[:24].copy().view("<u8").tolist()
            if not np.array_equal(arguments, array_arguments((height, width, channels))):
                raise ValueError(f"{self.path} holds arrays that are not uint8 [H, W, C]")
            self.channels = channels
            self.heights, self.widths = np.full(count, height), np.full(count, width)
            self._places, self.is_raw = image.astype(np.int64), np.ones(count, bool)
        else:
            self.channels = 3
            self.heights = image["height"].astype(np.int64)
            self.widths = image["width"].astype(np.int64)
            self._places, self.is_raw = image["place"].astype(np.int64), image["mode"] == RAW
        self.is_exact = bool(self.is_raw.all())

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> int:
        """The class of one sample."""
        return int(self.labels[index])

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """Pixels [H, W, C] uint8, a read-only view of the file.

        Raises:
            ValueError: the picture is stored as JPEG.
        """
        if not self.is_raw[index]:
            raise ValueError(
                f"sample {index} of {self.path} is stored as JPEG: for exact pixels write the file "
                "with tools/write_beton.py --preset exact"
            )
        shape = (int(self.heights[index]), int(self.widths[index]), self.channels)
        pixels = self._view(int(self._places[index]), np.dtype(np.uint8), math.prod(shape))
        return pixels.reshape(shape)

    def jpeg(self, index: int) -> npt.NDArray[np.uint8]:
        """The bytes [n] uint8 of a picture that is stored as JPEG, a read-only view of the file."""
        return self._view(int(self._places[index]), np.dtype(np.uint8), int(self._lengths[index]))

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        """[N], bytes of the stored pictures."""
        table = self._view(self._table, TABLE_ENTRY, len(self))
        lengths = np.zeros(len(self), np.int64)
        lengths[table["sample"].astype(np.int64)] = table["length"]
        return lengths

    def _view(self, start: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        stop = start + dtype.itemsize * count
        if stop > len(self._bytes):
            raise self._incomplete()
        return self._bytes[start:stop].view(np.ndarray).view(dtype)

    def _incomplete(self) -> ValueError:
        return ValueError(f"{self.path} is incomplete: write it again with tools/write_beton.py")

    def _names_of_classes(self) -> tuple[str, ...]:
        """From the data card; without one, the numbers up to the largest label."""
        card = card_path(self.path)
        smallest, largest = int(self.labels.min()), int(self.labels.max())
        if smallest < 0 or largest >= MOST_CLASSES:
            wrong = smallest if smallest < 0 else largest
            raise ValueError(
                f"{self.path} has the label {wrong}, it is damaged: write it again with "
                "tools/write_beton.py"
            )
        if not card.is_file():
            return tuple(map(str, range(largest + 1)))
        try:
            names = tuple(str(name) for name in json.loads(card.read_text())["class_names"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"data card {card} cannot be read ({error}): remove it") from None
        if largest >= len(names):
            raise ValueError(
                f"{self.path} has the label {largest}, but its data card {card.name} names "
                f"{len(names)} classes: write both again with tools/write_beton.py"
            )
        return names


def read_beton(path: Path) -> BetonFile:
    """Open a .beton file.

    Raises:
        ValueError: as `BetonFile`.
    """
    return BetonFile(path)
