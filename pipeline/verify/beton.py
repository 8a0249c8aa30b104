"""A reader of FFCV's .beton files with uncompressed pixels, written from the format in NumPy.

The file: a header of 24 bytes (version, number of fields, page size, number of samples, place of
the allocation table); a descriptor of 1041 bytes for each field (type, name, arguments); the
metadata, one aligned record a sample; the pixels, in pages. The fields are `image`, either an
RGBImageField whose record says mode, width, height and place (mode 1: raw) or an NDArrayField of
uint8 [H, W, C] whose record is the place; and `label`, an IntField.

Notable: nothing of FFCV is imported; every place is checked to lie within the file.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pipeline.verify.refusal import Refusal, quote, require

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table", "<u8"),
    ]
)
FIELD = np.dtype([("type", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)])
INT, RGB, NDARRAY = 1, 2, 4
RECORDS = {
    INT: np.dtype("<i8"),
    RGB: np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("place", "<u8")]),
    NDARRAY: np.dtype("<u8"),
}
RAW = 1


class BetonImages:
    """The samples of an exact beton, memory-mapped.

    Raises:
        Refusal: not such a file, incomplete, or with compressed pixels.
    """

    def __init__(self, path: Path) -> None:
        self._name = quote(path.name)
        try:
            self._bytes = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise Refusal(f"{self._name} cannot be read: {quote(error)}") from None
        header = self._array(0, HEADER, 1)[0]
        require(
            header["version"] == 2 and header["num_fields"] == 2,
            f"{self._name} is not a beton of two fields",
        )
        count = int(header["num_samples"])
        require(
            count > 0 and 0 < int(header["alloc_table"]) <= len(self._bytes),
            f"{self._name} is incomplete",
        )
        fields = self._array(HEADER.itemsize, FIELD, 2)
        names = [bytes(field["name"]).rstrip(b"\0").decode("ascii", "replace") for field in fields]
        require(
            set(names) == {"image", "label"}, f"{self._name} has not the fields image and label"
        )
        types = {name: int(field["type"]) for name, field in zip(names, fields, strict=True)}
        require(
            types["label"] == INT and types["image"] in (RGB, NDARRAY),
            f"{self._name} has fields of other types than images and integer labels",
        )
        record = np.dtype([(name, RECORDS[types[name]]) for name in names], align=True)
        samples = self._array(HEADER.itemsize + fields.nbytes, record, count)
        self._labels, self._places = samples["label"], samples["image"]
        self._shape = (0, 0, 0)
        if types["image"] == NDARRAY:
            self._shape = self._array_shape(fields[names.index("image")]["arguments"])
        else:
            require(
                bool((self._places["mode"] == RAW).all()),
                f"{self._name} holds JPEG images, not the exact pixels",
            )

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> int:
        """The class of one image."""
        return int(self._labels[index])

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, C]."""
        entry = self._places[index]
        if self._places.dtype.names is None:
            return self._array(int(entry), np.dtype(np.uint8), math.prod(self._shape)).reshape(
                self._shape
            )
        shape = (int(entry["height"]), int(entry["width"]), 3)
        return self._array(int(entry["place"]), np.dtype(np.uint8), math.prod(shape)).reshape(shape)

    def _array(self, start: int, dtype: np.dtype, count: int) -> np.ndarray:
        stop = start + dtype.itemsize * count
        require(0 <= start <= stop <= len(self._bytes), f"{self._name} is shorter than it says")
        return self._bytes[start:stop].view(np.ndarray).view(dtype)

    def _array_shape(self, arguments: np.ndarray) -> tuple[int, int, int]:
        """Shape of an NDArrayField of uint8: 32 lengths, ended by zeros, then the type as JSON."""
        head = np.ascontiguousarray(arguments[: 33 * 8]).view("<u8")
        shape = tuple(int(length) for length in head[:32] if length)
        kind = bytes(arguments[33 * 8 :][: int(min(head[32], 64))])
        require(
            len(shape) == 3 and all(length < 2**16 for length in shape) and b'"|u1"' in kind,
            f"{self._name} has images that are not uint8 [H, W, C]",
        )
        height, width, channels = shape
        return height, width, channels
