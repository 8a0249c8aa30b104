"""How photographs are stored: the presets of `tools/write_beton.py` and what may be changed.

    exact        what is certified: shorter side 256, middle 224 × 224 (scaled to the size), pixels
    train        to be cropped at random: shorter side 256, all JPEG of quality 90
    raw          as `train`, but pixels: seven times the room, and no decoding while training
    proportion   FFCV's usual ImageNet file, for random resized crops: longest side at most 500,
                 half of the pictures JPEG of quality 90, the other half pixels

Notable: which half is a hash of the sample's index, so that the same source gives the same bytes.
Data of one small size (digits, MNIST, CIFAR, Tiny-ImageNet) are stored untouched by every preset.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.data.order import STORAGE, sample_hashes
from pipeline.data.pixels import (
    LONGEST_ASPECT,
    exact_photo,
    limited_photo,
    shorter_side,
    train_photo,
)

Preset = Literal["exact", "train", "raw", "proportion"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
PHOTO_SIZE = 224
LARGEST_QUALITY = 100

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Storage:
    """What becomes of a photograph."""

    preset: Preset
    size: int = PHOTO_SIZE
    """Side of the model's images. Presets other than `proportion` resize for it."""
    longest: int | None = None
    """Longest side at most; None resizes the shorter side for `size`."""
    compressed: float = 0.0
    """Share of the pictures stored as JPEG."""
    quality: int = 90
    """Of the JPEGs."""

    def picture(self, photo: Pixels) -> Pixels:
        """The pixels [h, w, 3] to store of a photograph [H, W, 3]."""
        if self.preset == "exact":
            return exact_photo(photo, self.size)
        if self.longest is not None:
            return limited_photo(photo, self.longest)
        return train_photo(photo, self.size)

    def compresses(self, indices: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether the samples with these indices [n] become JPEGs, [n]."""
        drawn = sample_hashes(STORAGE, 0, 0, indices) >> np.uint64(11)
        return drawn < self.compressed * 2.0**53

    @property
    def largest_bytes(self) -> int:
        """Of a picture as pixels."""
        if self.preset == "exact":
            return 3 * self.size**2
        if self.longest is not None:
            return 3 * self.longest**2
        return 3 * LONGEST_ASPECT * shorter_side(self.size) ** 2

    def record(self) -> dict[str, Any]:
        """For the data card."""
        return asdict(self)


_DEFAULTS: dict[Preset, Storage] = {
    "exact": Storage("exact"),
    "train": Storage("train", compressed=1.0),
    "raw": Storage("raw"),
    "proportion": Storage("proportion", longest=500, compressed=0.5),
}


def storage_of(
    preset: Preset,
    size: int | None = None,
    longest: int | None = None,
    compressed: float | None = None,
    quality: int | None = None,
) -> Storage:
    """A preset with some of its settings changed; None leaves one as it is.

    Raises:
        ValueError: a value out of range, or a setting that the preset does not have.
    """
    storage = _DEFAULTS[preset]
    if preset == "exact" and not (longest is compressed is quality is None):
        raise ValueError(
            "--preset exact stores what is certified: --longest, --compressed and --quality would "
            "change it, leave them out or take --preset train"
        )
    if preset == "proportion" and size is not None:
        raise ValueError(
            f"--size {size} means nothing to --preset proportion, whose pictures are resized while "
            "training: leave it out, or limit them with --longest"
        )
    for name, value, most in (
        ("size", size, 2**13),
        ("longest", longest, 2**13),
        ("quality", quality, LARGEST_QUALITY),
    ):
        if value is not None and not 1 <= value <= most:
            raise ValueError(f"--{name} {value} must be from 1 to {most}")
    if compressed is not None and not 0 <= compressed <= 1:
        raise ValueError(f"--compressed {compressed} must be a share from 0 to 1")
    given: dict[str, Any] = {
        "size": size,
        "longest": longest,
        "compressed": compressed,
        "quality": quality,
    }
    return replace(storage, **{name: value for name, value in given.items() if value is not None})
