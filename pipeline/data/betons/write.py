"""Writing .beton files from a source, with their data card.

Notable:
- Nothing appears under the final name before it is whole: the file is written beside it, read back,
  hashed, and renamed. A killed writer leaves `NAME.beton.partial`, which the next one overwrites;
  two writers of one file exclude each other.
- The size is estimated first, and a disk that is too short is refused before the first byte.
- A picture that cannot be read ends the writing with its name.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import PIL

from pipeline.data.betons.format import BetonFile, card_path, read_beton
from pipeline.data.betons.writer import encode_jpeg, page_size, write_samples
from pipeline.data.content import ContentHash
from pipeline.data.pixels import exact_photo, train_photo
from pipeline.data.sources import Source, Split, open_source
from pipeline.data.workers import worker_count
from pipeline.progress import ProgressBar, say

Preset = Literal["train", "exact"]
JPEG_QUALITY = 90
PHOTO_SIZE = 224
SAMPLED_FOR_ESTIMATE = 16


class Pictures:
    """A source as a preset stores it: picture by picture, [H, W, C] uint8."""

    def __init__(self, source: Source, preset: Preset, size: int) -> None:
        self.source, self.preset, self.size = source, preset, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        image = self.source.image(index)
        if self.source.photographs:
            image = (exact_photo if self.preset == "exact" else train_photo)(image, self.size)
        return image, int(self.source.labels[index])

    @property
    def jpeg_quality(self) -> int | None:
        """Photographs for training are stored as JPEG; everything else as it is."""
        return JPEG_QUALITY if self.source.photographs and self.preset == "train" else None


def write_beton(
    spec: str,
    split: Split,
    preset: Preset,
    out: Path,
    size: int | None = None,
    workers: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Write one split of a source.

    Args:
        spec: `digits`, `folder:PATH` or `npz:PATH`.
        split: which part.
        preset: `exact` for what is certified, `train` for what is augmented.
        out: the file; its data card goes beside it.
        size: side of the images that photographs become, 224 if not given.
        workers: threads that read and compress; 0 takes the cores there are.
        force: replace an existing file.

    Returns:
        The data card.

    Raises:
        ValueError: anything that the user can mend, naming it; nothing is left behind.
    """
    if out.suffix != ".beton":
        raise ValueError(f"--out {out} must end in .beton: the loaders know the format by that")
    if out.exists() and not force:
        raise ValueError(f"{out} exists: give --force to replace it, or another --out")
    source = open_source(spec, split)
    pictures = Pictures(source, preset, _image_size(source, size))
    if source.passed_over:
        say(f"passed over, not in a class folder: {', '.join(source.passed_over)}")
    _require_room(out, estimated_bytes(pictures), len(pictures))
    try:
        with _partial(out) as (partial, file):
            write_samples(file, pictures, pictures.jpeg_quality, worker_count(workers))
            os.fsync(file.fileno())
            card = _data_card(spec, split, pictures, read_beton(partial))
            out.unlink(missing_ok=True)  # a new card must never lie beside the old file
            _write_card(card, card_path(out))
            partial.replace(out)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from None
    return card


def _image_size(source: Source, size: int | None) -> int:
    """Side of the stored images, or what they are cropped to.

    Raises:
        ValueError: the size is no size, or not the one that a data set of one size has.
    """
    if size is not None and size < 1:
        raise ValueError(f"--size {size} must be at least 1")
    if source.photographs:
        return size or PHOTO_SIZE
    own = source.image(0).shape[0]
    if size not in (None, own):
        raise ValueError(
            f"--size {size}: these images have {own} pixels a side and are stored untouched: leave "
            "--size out"
        )
    return own


@contextmanager
def _partial(out: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """The empty file to write, under another name and locked; gone after an error."""
    partial = out.with_name(out.name + ".partial")
    with partial.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"--out {out} is being written by another process") from None
        try:
            with partial.open("w+b") as file:
                yield partial, file
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def estimated_bytes(pictures: Pictures) -> int:
    """Size of the file to be, from a few of its pictures."""
    count = len(pictures)
    chosen = sorted({i * count // SAMPLED_FOR_ESTIMATE for i in range(SAMPLED_FOR_ESTIMATE)})
    images = [pictures[index][0] for index in chosen]
    quality = pictures.jpeg_quality
    stored = [
        image.nbytes if quality is None else len(encode_jpeg(image, quality)) for image in images
    ]
    page = page_size(images[0].nbytes)
    pages = -(-count // max(1, int(page // np.mean(stored))))
    records_and_table = 64 * count
    return (pages + 1) * page + records_and_table


def _require_room(out: Path, needed: int, count: int) -> None:
    """Say the estimate; refuse a disk without room for it and a tenth more."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
    except OSError as error:
        raise ValueError(f"--out {out}: cannot write to {out.parent} ({error.strerror})") from None
    say(f"{count:,} images, about {_readable(needed)}; {_readable(free)} free")
    if needed * 1.1 > free:
        raise ValueError(
            f"--out {out}: about {_readable(needed)} will be needed and only {_readable(free)} are "
            f"free in {out.parent}: make room or choose another disk"
        )


def _data_card(spec: str, split: Split, pictures: Pictures, written: BetonFile) -> dict[str, Any]:
    """What is in the file, read back from it."""
    labels = Counter(written.labels.tolist())
    names = pictures.source.class_names
    shapes = {(int(h), int(w)) for h, w in zip(written.heights, written.widths, strict=True)}
    return {
        "format": "certline data card 1",
        "source": spec,
        "split": split,
        "preset": pictures.preset,
        "size": pictures.size,
        "num_samples": len(written),
        "image_shape": [written.channels, *shapes.pop()] if len(shapes) == 1 else None,
        "class_names": list(names),
        "images_per_class": {name: labels[label] for label, name in enumerate(names)},
        "dataset_sha256": _content_sha256(written) if written.is_exact else None,
        "passed_over": list(pictures.source.passed_over),
        "pillow": PIL.__version__,
    }


def _write_card(card: dict[str, Any], path: Path) -> None:
    """Write beside, and rename."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w") as file:
            file.write(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _content_sha256(written: BetonFile) -> str:
    content = ContentHash()
    with ProgressBar("read back", total=len(written), unit="img") as bar:
        for index in range(len(written)):
            content.update(written.label(index), written.image(index))
            bar.advance()
    return content.hexdigest()


def _readable(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
