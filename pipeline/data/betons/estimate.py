"""How large a .beton file will be and how long it will take, from a few of its pictures."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.betons.writer import Layout, Samples, encode_jpeg
from pipeline.data.sources.base import UnreadablePicture
from pipeline.progress import say

SAMPLED = 24
BYTES_A_SAMPLE = 64
"""Record and table entry, rounded up."""


@dataclass(frozen=True)
class Estimate:
    """Of the whole file."""

    bytes: int
    seconds: float


def estimate(samples: Samples, layout: Layout, workers: int) -> Estimate:
    """Read and compress a few of the samples.

    Raises:
        ValueError: none of them can be read.
    """
    count = len(samples)
    stored: list[int] = []
    seconds = 0.0
    for index in sorted({i * count // SAMPLED for i in range(SAMPLED)}):
        began = time.perf_counter()
        try:
            sample = samples[index]
        except UnreadablePicture:
            continue  # named when it is its turn
        jpeg = encode_jpeg(sample.image, layout.quality) if sample.as_jpeg else None
        stored.append(sample.image.nbytes if jpeg is None else len(jpeg))
        seconds += time.perf_counter() - began
    if not stored:
        raise ValueError("none of the pictures looked at can be read: is this the right source?")
    pages = -(-count // max(1, int(layout.page // np.mean(stored))))
    return Estimate(
        bytes=layout.start + pages * layout.page + BYTES_A_SAMPLE * count,
        seconds=seconds / len(stored) * count / workers,
    )


def require_room(out: Path, expected: Estimate, count: int, already: int) -> None:
    """Say the estimate; refuse a disk without room for it and a tenth more.

    Args:
        already: bytes of the file that a killed writer left.

    Raises:
        ValueError: there is too little room.
    """
    free = shutil.disk_usage(out.parent).free + already
    say(
        f"{out}: {count:,} images, about {readable(expected.bytes)} and "
        f"{_duration(expected.seconds)}; {readable(free)} free"
    )
    if expected.bytes * 1.1 > free:
        raise ValueError(
            f"--out {out}: about {readable(expected.bytes)} will be needed and only "
            f"{readable(free)} are free in {out.parent}: make room or choose another disk"
        )


def readable(size: float) -> str:
    """Bytes with a unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
