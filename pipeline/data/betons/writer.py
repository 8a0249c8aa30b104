"""Writing .beton files (the format: `format.py`) in one pass, in order of index.

Notable: not FFCV's own writer, which waits for ever when a picture cannot be read, a worker dies or
the disk is full, leaves workers behind when it is killed, and orders pages by chance. Here threads
read and compress (PIL releases the GIL) and one writes: errors come out where they happen, a killed
process leaves nothing that runs and goes on at the last finished shard (`shards.py`), and the bytes
are the same for any number of threads and of kills. Nor is FFCV needed to write.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
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
from pipeline.data.betons.shards import DIGEST, SHARD, Parts, Shard, Skipped
from pipeline.data.sources.base import UnreadablePicture
from pipeline.data.workers import Workers
from pipeline.progress import ProgressBar

Pixels = npt.NDArray[np.uint8]

SMALLEST_PAGE = 2 * 2**20
"""The smallest that FFCV takes."""
_NO_PIXELS = np.empty((0, 0, 0), np.uint8)


@dataclass(frozen=True)
class Sample:
    """One picture as it is stored."""

    image: Pixels
    """[h, w, C] uint8."""
    label: int
    height: int
    """In the source, as the width."""
    width: int
    as_jpeg: bool


class Samples(Protocol):
    """What is written, by index, from any thread."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """ValueError ends the writing; UnreadablePicture is skipped where that is wished."""
        ...


def encode_jpeg(image: Pixels, quality: int) -> bytes:
    """An RGB image [H, W, 3] as JPEG."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality)
    return data.getvalue()


def page_size(largest: int) -> int:
    """Bytes of a page, a power of two, for pictures of at most so many bytes."""
    page = SMALLEST_PAGE
    while page < 2 * largest:
        page *= 2
    return page


@dataclass(frozen=True)
class Layout:
    """What has to be known of a file before its first picture."""

    shape: tuple[int, int, int]
    """Of the pictures [H, W, C]; H and W count only where C is not 3."""
    count: int
    """Samples of the source: the file has as many or, where some are skipped, fewer."""
    largest_bytes: int
    """Of a picture."""
    quality: int
    """Of JPEGs."""

    @property
    def fields(self) -> dict[str, int]:
        """Name and type of the fields."""
        return {"image": RGB if self.shape[2] == 3 else NDARRAY, "label": INT}

    @property
    def record_type(self) -> np.dtype[Any]:
        """Of a sample."""
        return record_type(self.fields)

    @property
    def page(self) -> int:
        """Bytes of a page."""
        return page_size(self.largest_bytes)

    @property
    def start(self) -> int:
        """Where the first page begins: behind as many records as there can be."""
        head = HEADER.itemsize + 2 * FIELD.itemsize + self.count * self.record_type.itemsize
        return -(-head // self.page) * self.page


class BetonWriter:
    """Writes one file, a shard at a time.

    Args:
        file: seekable; what lies behind the finished shards is cut off.
        layout: the same whenever the file is worked on.
        parts: the finished shards; grows.
        skip: pass over pictures that cannot be read, instead of ending.
    """

    def __init__(self, file: BinaryIO, layout: Layout, parts: Parts, skip: bool) -> None:
        self._file, self._layout, self._parts, self._skip = file, layout, parts, skip
        if parts.shards and file.seek(0, io.SEEK_END) < parts.shards[-1].end:
            parts.clear()  # the records of another .partial file
        self._end = parts.shards[-1].end if parts.shards else layout.start
        file.truncate(self._end)
        file.seek(self._end)

    def write(self, samples: Samples, workers: int) -> None:
        """Write all samples that are not in finished shards, and finish the file.

        Args:
            samples: of three channels, or all of one shape.
            workers: threads that read and compress.

        Raises:
            ValueError: what `samples` raises.
            OSError: the disk is full.
        """
        begun = self._parts.shards[-1].stop if self._parts.shards else 0
        pool = Workers(workers)
        try:
            with ProgressBar("write", total=len(samples), unit="img", initial=begun) as bar:
                encoded = pool.ahead(partial(self._encode, samples), range(begun, len(samples)))
                for first in range(begun, len(samples), SHARD):
                    indices = range(first, min(first + SHARD, len(samples)))
                    self._parts.add(self._write_shard(indices, encoded, bar))
        finally:
            pool.close()
        self._finish()

    def _encode(self, samples: Samples, index: int) -> _Encoded | Skipped:
        """Read and compress one picture. In any thread."""
        try:
            sample = samples[index]
        except UnreadablePicture as error:
            if not self._skip:
                raise
            return Skipped(index, error.picture, error.reason)
        image = np.ascontiguousarray(sample.image)
        digest = hashlib.blake2b(image.data, digest_size=DIGEST.itemsize).digest()
        quality = self._layout.quality
        data = encode_jpeg(image, quality) if sample.as_jpeg else image.tobytes()
        return _Encoded(index, replace(sample, image=_NO_PIXELS), image.shape[:2], data, digest)

    def _write_shard(
        self, indices: range, encoded: Iterator[_Encoded | Skipped], bar: ProgressBar
    ) -> Shard:
        """Put the next pictures into the file, and have them safe on disk."""
        kept: list[_Encoded] = []
        skipped: list[Skipped] = []
        places: list[tuple[int, int]] = []
        for _, item in zip(indices, encoded, strict=False):  # the indices end first
            if isinstance(item, Skipped):
                skipped.append(item)
            else:
                places.append(self._put(item.data))
                kept.append(replace(item, data=b""))
            bar.advance()
        self._file.flush()
        os.fsync(self._file.fileno())
        records = np.zeros(len(kept), self._layout.record_type)
        table = np.zeros(len(kept), TABLE_ENTRY)
        before = sum(len(shard.records) for shard in self._parts.shards)
        for number, (item, (place, length)) in enumerate(zip(kept, places, strict=True)):
            records[number] = self._record(item, place)
            table[number] = (before + number, place, length)
        return Shard(
            records=records,
            table=table,
            digests=np.frombuffer(b"".join(item.digest for item in kept), DIGEST),
            indices=np.array([item.index for item in kept], np.int64),
            sizes=np.array(
                [(item.sample.height, item.sample.width) for item in kept], np.int64
            ).reshape(-1, 2),
            skipped=tuple(skipped),
            stop=indices.stop,
            end=self._end,
        )

    def _put(self, data: bytes) -> tuple[int, int]:
        """Write a picture into this page or, if it does not fit, the next: place and length."""
        page = self._layout.page
        assert len(data) <= page, f"a picture of {len(data)} bytes in pages of {page}"
        left = -self._end % page
        if len(data) > left:
            self._file.seek(left, io.SEEK_CUR)
            self._end += left
        place = self._end
        self._file.write(data)
        self._end += len(data)
        return place, len(data)

    def _record(self, item: _Encoded, place: int) -> tuple[Any, int]:
        label = item.sample.label
        if self._layout.fields["image"] == NDARRAY:
            return place, label
        height, width = item.stored
        return (JPEG if item.sample.as_jpeg else RAW, width, height, place), label

    def _finish(self) -> None:
        """Write the table, then the head, and last of all where the table is."""
        layout, file = self._layout, self._file
        shards = self._parts.shards
        count = sum(len(shard.records) for shard in shards)
        # As bytes: NumPy leaves chance in the gaps between the fields of joined arrays.
        records = b"".join(shard.records.tobytes() for shard in shards)
        table = b"".join(shard.table.tobytes() for shard in shards)
        if count == 0:
            raise ValueError("no picture of the source can be read: nothing to write")
        file.seek(self._end + -self._end % layout.page)
        header = np.zeros((), HEADER)
        header["version"], header["num_fields"] = VERSION, len(layout.fields)
        header["page_size"], header["num_samples"] = layout.page, count
        header["table"] = file.tell()
        file.write(table)
        file.seek(HEADER.itemsize)
        file.write(_describe(layout.fields, layout.shape) + records)
        file.flush()
        file.seek(0)
        file.write(header.tobytes())
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True)
class _Encoded:
    """A picture on its way into the file."""

    index: int
    sample: Sample
    """Without its pixels."""
    stored: tuple[int, ...]
    """Height and width."""
    data: bytes
    digest: bytes


def _describe(fields: dict[str, int], shape: tuple[int, ...]) -> bytes:
    described = np.zeros(len(fields), FIELD)
    for row, (name, kind) in zip(described, fields.items(), strict=True):
        row["type"] = kind
        row["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        if kind == NDARRAY:
            row["arguments"] = array_arguments(shape)
    return described.tobytes()
