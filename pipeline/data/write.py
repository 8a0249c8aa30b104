"""Writing .beton files from a source, with their data card.

Notable:
- Nothing appears under the final name before it is whole: the file is written beside it, read back,
  hashed, and renamed. A killed writer leaves `NAME.beton.partial`, which the next one overwrites.
- The size is estimated first, and a disk that is too short is refused before the first byte.
- A picture that cannot be read ends the writing with its name (`ffcv_writer.py`).
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from pipeline.data.beton import BetonFile, card_path, read_beton
from pipeline.data.content import ContentHash
from pipeline.data.pixels import exact_photo, train_photo
from pipeline.data.sources import Source, Split, open_source
from pipeline.progress import ProgressBar, say

Preset = Literal["train", "exact"]
JPEG_QUALITY = 90
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
        return np.ascontiguousarray(image), int(self.source.labels[index])

    @property
    def compressed(self) -> bool:
        """Stored as JPEG: photographs for training. Everything else is stored as it is."""
        return self.source.photographs and self.preset == "train"


def write_beton(
    spec: str,
    split: Split,
    preset: Preset,
    out: Path,
    size: int = 224,
    workers: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Write one split of a source.

    Args:
        spec: `digits`, `folder:PATH` or `npz:PATH`.
        split: which part.
        preset: `exact` for what is certified, `train` for what is augmented.
        out: the file; its data card goes beside it.
        size: side of the images that photographs become.
        workers: processes that read and encode; 0 takes the cores there are.
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
    if size < 1:
        raise ValueError(f"--size {size} must be at least 1")
    if not importlib.util.find_spec("ffcv"):
        raise ValueError(
            "FFCV is needed to write .beton files and is not installed: as root run make setup; "
            "training and certification also read the source itself"
        )
    source = open_source(spec, split)
    if source.passed_over:
        say(f"passed over, not in a class folder: {', '.join(source.passed_over)}")
    pictures = Pictures(source, preset, size)
    _require_room(out, estimated_bytes(pictures), len(pictures))

    from pipeline.data.ffcv_writer import write_samples

    partial = out.with_name(out.name + ".partial")
    card_partial = card_path(partial)
    try:
        write_samples(
            partial, pictures, JPEG_QUALITY if pictures.compressed else None,
            workers or len(os.sched_getaffinity(0)),
        )  # fmt: skip
        card = _data_card(spec, split, pictures, read_beton(partial))
        card_partial.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
        for path in (partial, card_partial):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        card_partial.replace(card_path(out))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
        card_partial.unlink(missing_ok=True)
    return card


def estimated_bytes(pictures: Pictures) -> int:
    """Size of the file to be, from a few of its pictures."""
    count = len(pictures)
    chosen = sorted({i * count // SAMPLED_FOR_ESTIMATE for i in range(SAMPLED_FOR_ESTIMATE)})
    sizes = []
    for index in chosen:
        image, _ = pictures[index]
        if pictures.compressed:
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "JPEG", quality=JPEG_QUALITY)
            sizes.append(len(encoded.getvalue()))
        else:
            sizes.append(image.nbytes)
    records_and_table = 64 * count
    return int(count * np.mean(sizes)) + records_and_table + 4 * 2**20  # pages never full


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
        "num_samples": len(written),
        "image_shape": [written.channels, *shapes.pop()] if len(shapes) == 1 else None,
        "class_names": list(names),
        "images_per_class": {name: labels[label] for label, name in enumerate(names)},
        "dataset_sha256": _content_sha256(written) if written.is_exact else None,
        "passed_over": list(pictures.source.passed_over),
        "pillow": PIL.__version__,
    }


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
