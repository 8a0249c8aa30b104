"""Writing .beton files (the format: `format.py`) in one pass, in order of index.

Notable: not FFCV's own writer, which waits for ever when a picture cannot be read, a worker dies or
the disk is full, leaves workers behind when it is killed, and orders pages by chance. Here threads
read and compress (PIL releases the GIL) and one writes: errors come out where they happen, a killed
process leaves nothing that runs, and the bytes are the same for any number of threads. Nor is FFCV
needed to write.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.betons.format import (
    FIELD,
    HEADER,
    INT,
    JPEG,
    NDARRAY,
    RAW,
    RGB,
    TABLE_ENTRY,
    VERSION,
    array_arguments,
    record_type,
)
from pipeline.data.workers import Workers
from pipeline.progress import ProgressBar

Pixels = npt.NDArray[np.uint8]

SMALLEST_PAGE = 2 * 2**20
"""The smallest that FFCV takes."""
IMAGES_PER_PAGE = 8
"""At least, so that little of a page is left empty."""


class Samples(Protocol):
    """What is written: (image [H, W, C] uint8, label) by index, from any thread."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Pixels, int]: ...


def encode_jpeg(image: Pixels, quality: int) -> bytes:
    """An RGB image [H, W, 3] as JPEG."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality)
    return data.getvalue()


def page_size(image_bytes: int) -> int:
    """Bytes of a page, a power of two, for images of about that many bytes."""
    page = SMALLEST_PAGE
    while page < IMAGES_PER_PAGE * image_bytes:
        page *= 2
    return page


def write_samples(file: BinaryIO, samples: Samples, jpeg_quality: int | None, workers: int) -> None:
    """Write all samples to an empty file.

    Args:
        file: seekable; the place of the table, without which no reader takes the file, is written
            last.
        samples: of three channels, or all of one shape.
        jpeg_quality: of three-channel images; None stores pixels.
        workers: threads that read and compress.

    Raises:
        ValueError: what `samples` raises, or an image that is longer than 65535 pixels.
        OSError: the disk is full.
    """
    first, _ = samples[0]
    fields = {"image": RGB if first.shape[2] == 3 else NDARRAY, "label": INT}
    records = np.zeros(len(samples), record_type(fields))
    table = np.zeros(len(samples), TABLE_ENTRY)
    page = page_size(first.nbytes)
    header = np.zeros((), HEADER)
    header["version"], header["num_fields"], header["page_size"] = VERSION, len(fields), page
    header["num_samples"] = len(samples)
    described = _describe(fields, first.shape)
    data_start = HEADER.itemsize + len(described) + records.nbytes
    end = -(-data_start // page) * page
    file.seek(end)

    def encode(index: int) -> tuple[Pixels, int, bytes | memoryview]:
        image, label = samples[index]
        if jpeg_quality is None or image.shape[2] != 3:
            return image, label, np.ascontiguousarray(image).data
        return image, label, encode_jpeg(image, jpeg_quality)

    pool = Workers(workers)
    try:
        with ProgressBar("write", total=len(samples), unit="img") as bar:
            encoded = pool.ahead(encode, range(len(samples)))
            for index, (image, label, data) in enumerate(encoded):
                length = len(data) if isinstance(data, bytes) else data.nbytes
                left = -end % page
                if length > left:
                    file.seek(left, io.SEEK_CUR)
                    end += left
                assert length <= page, f"sample {index} of {length} bytes in pages of {page}"
                file.write(data)
                records[index] = _record(
                    fields["image"], image, isinstance(data, bytes), end, label
                )
                table[index] = (index, end, length)
                end += length
                bar.advance()
    finally:
        pool.close()
    file.seek(-end % page, io.SEEK_CUR)
    header["table"] = file.tell()
    file.write(table.tobytes())
    file.seek(HEADER.itemsize)
    file.write(described + records.tobytes())
    file.flush()
    file.seek(0)
    file.write(header.tobytes())
    file.flush()


def _describe(fields: dict[str, int], shape: tuple[int, ...]) -> bytes:
    described = np.zeros(len(fields), FIELD)
    for row, (name, kind) in zip(described, fields.items(), strict=True):
        row["type"] = kind
        row["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        if kind == NDARRAY:
            row["arguments"] = array_arguments(shape)
    return described.tobytes()


def _record(kind: int, image: Pixels, is_jpeg: bool, place: int, label: int) -> tuple[Any, int]:
    if kind == NDARRAY:
        return place, label
    height, width, _ = image.shape
    if max(height, width) > 0xFFFF:
        raise ValueError(f"an image of {height}x{width} pixels is too long for a .beton file")
    return (JPEG if is_jpeg else RAW, width, height, place), label
