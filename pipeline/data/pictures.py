"""Data sets as the loaders read them: picture by picture, of a size checked when they are opened.

Notable:
- Photographs of a source are resized here as the presets of `tools/write_beton.py` do it, so that
  training from `folder:PATH` sees the pixels of the .beton file that would be written from it.
- Photographs in a .beton for training are those stored as JPEG or in various sizes; they must have
  the shorter side that belongs to the model's image size.
- What a source gives is decoded once and kept as long as there is room; what does not fit is
  decoded again each time. Pictures of a .beton file are views of the mapped file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.data.betons.format import BetonFile, read_beton
from pipeline.data.classes import ClassSubset
from pipeline.data.pixels import exact_photo, shorter_side, train_photo
from pipeline.data.sources import Source, Split, open_source
from pipeline.data.sources.decode import SMALL

Pixels = npt.NDArray[np.uint8]
Preset = Literal["train", "exact"]

KEPT_BYTES = 2 * 2**30
"""Room for decoded pictures of a source, a process."""

_WRITE_IT = "write it with tools/write_beton.py"


class Pictures(Protocol):
    """What a loader reads."""

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    channels: int
    exact: bool

    def picture(self, index: int) -> Pixels:
        """[h, w, C] uint8, contiguous and read-only. Training pictures may exceed the images."""
        ...


def open_pictures(
    spec: str, split: Split, size: int, preset: Preset, any_size: bool = False
) -> SourcePictures | BetonPictures:
    """The pictures of a dataset spec.

    Args:
        size: side of the model's images.
        preset: `train`: photographs somewhat larger, to crop from; `exact`: as certified.
        any_size: the pictures of a .beton file may have any size, since they are cropped and
            resized at random.

    Raises:
        ValueError: there is no such data set, or its images have another size.
    """
    if spec.endswith(".beton"):
        return BetonPictures(read_beton(_existing(Path(spec))), size, preset, any_size)
    return SourcePictures(open_source(spec, split), size, preset)


class SourcePictures:
    """A source, with photographs resized as `preset` does."""

    def __init__(self, source: Source, size: int, preset: Preset) -> None:
        self.labels = source.labels
        self.class_names = source.class_names
        self.exact = preset == "exact"
        self.source, self._size = source, size
        self._resize: Callable[[Pixels, int], Pixels] | None = None
        if source.photographs:
            self._resize = train_photo if preset == "train" else exact_photo
        self._kept: dict[int, Pixels] = {}
        self._room = KEPT_BYTES
        self.channels = self.picture(0).shape[2]

    def picture(self, index: int) -> Pixels:
        """See `Pictures`; ValueError if it has not the size that the model takes."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        picture = self.source.image(index)
        if self._resize is not None:
            picture = self._resize(picture, self._size)
        elif picture.shape[:2] != (self._size, self._size):
            raise ValueError(
                f"{self.source.describe(index)} has {_pixels(*picture.shape[:2])}, and the model "
                f"takes {_pixels(self._size, self._size)}: set model.image_size"
            )
        picture = np.ascontiguousarray(picture)
        picture.flags.writeable = False
        if picture.nbytes <= self._room:
            self._room -= picture.nbytes
            self._kept[index] = picture
        return picture


class BetonPictures:
    """A .beton file, read through NumPy. Its header tells the size of every picture."""

    def __init__(self, beton: BetonFile, size: int, preset: Preset, any_size: bool = False) -> None:
        self.labels = beton.labels
        self.class_names = beton.class_names
        self.channels = beton.channels
        self.exact = preset == "exact"
        self._beton = beton
        if preset == "exact" and not beton.is_exact:
            raise ValueError(
                f"{beton.path} holds JPEG images, which are not exact and cannot be certified: "
                "write exact pixels with tools/write_beton.py --preset exact"
            )
        if not any_size:
            self._check_sizes(size, preset)

    @property
    def is_raw(self) -> bool:
        """Whether every picture is stored as pixels; others only FFCV decodes."""
        return self._beton.is_exact

    def picture(self, index: int) -> Pixels:
        """See `Pictures`; for pictures stored raw."""
        return self._beton.image(index)

    def decoded(self, index: int) -> Pixels:
        """As `picture`, and JPEGs too, which needs FFCV."""
        beton = self._beton
        if beton.is_raw[index]:
            return beton.image(index)
        from pipeline.data.ops import decode_jpeg

        shape = (int(beton.heights[index]), int(beton.widths[index]), beton.channels)
        return decode_jpeg(beton.jpeg(index), shape, index)

    def _check_sizes(self, size: int, preset: Preset) -> None:
        beton = self._beton
        sides = np.stack([beton.heights, beton.widths])
        if (sides == size).all():
            return
        # Data of one small size are square; photographs of one size are not, or not small.
        varied = (sides != sides[0, 0]).any() or sides[0, 0] > SMALL
        if preset == "train" and (varied or not beton.is_exact):  # photographs, to be cropped
            wrong = np.flatnonzero(sides.min(axis=0) != shorter_side(size))
        else:
            wrong = np.flatnonzero((sides != size).any(axis=0))
        if len(wrong):
            first = wrong[0]
            mend = "set model.image_size"
            if varied or not beton.is_exact:
                mend = f"write it again with tools/write_beton.py --preset {preset} --size {size}"
            raise ValueError(
                f"sample {first} of {beton.path} has {_pixels(*sides[:, first])}, and the model "
                f"takes {_pixels(size, size)}: {mend}"
            )


class SubsetPictures:
    """Those of some classes (`classes.py`)."""

    def __init__(self, pictures: Pictures, subset: ClassSubset) -> None:
        self.labels, self.class_names = subset.labels, subset.class_names
        self.channels, self.exact = pictures.channels, pictures.exact
        self._pictures, self._samples = pictures, subset.samples

    def picture(self, index: int) -> Pixels:
        """See `Pictures`; `index` counts what is left."""
        return self._pictures.picture(int(self._samples[index]))


def _existing(path: Path) -> Path:
    """`path`, or a ValueError with the nearest name beside it."""
    if not path.is_file():
        names = [other.name for other in path.parent.glob("*.beton")]
        near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
        mend = f"did you mean {path.with_name(near[0])}?" if near else _WRITE_IT
        raise ValueError(f"data file {path} does not exist: {mend}")
    return path


def _pixels(height: int, width: int) -> str:
    return f"{height}x{width} pixels"
