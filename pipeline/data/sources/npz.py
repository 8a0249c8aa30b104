"""`npz:PATH`: images and labels in one NumPy archive. Three layouts are read:

- `x_train`, `y_train`, `x_test` (or `x_val`), ...: pixels [N, H, W] or [N, H, W, C] uint8;
- `train_bytes`, `train_offsets`, `y_train`, ...: encoded pictures, number i is
  bytes[offsets[i]:offsets[i+1]]; grey ones among them become RGB, and unless all are square, of one
  size and at most 64 px they are photographs;
- `image`, `label`: the whole file is the split that is asked for (generated data).

Class names are taken from `class_names` or `wnids`. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.base import (
    Pixels,
    Split,
    array_content,
    check_labels,
    existing,
    fingerprint,
)
from pipeline.data.sources.decode import decode_rgb, small_side


class NpzArchive:
    """Images from an .npz file. See `Source`.

    Raises:
        ValueError: the file is missing, damaged, of another layout, or a label is out of range.
    """

    passed_over: tuple[str, ...] = ()

    def __init__(self, path: Path, split: Split) -> None:
        self._name = path.name
        self._bytes: npt.NDArray[np.uint8] | None = None
        self._side: int | None = None
        with _Archive(existing(path, f"npz:{path}")) as archive:
            labels = self._load(archive, split)
            self.class_names = _class_names(archive)
        count = len(self._images) if self._bytes is None else len(self._offsets) - 1
        if count == 0:
            raise ValueError(f"{self._name} ({self._split}) holds no images")
        where = f"{self._name} ({self._split})"
        self.labels = check_labels(labels, count, len(self.class_names), where)
        if self._bytes is not None:
            self._side = small_side(self._encoded, count)
        self.photographs = self._bytes is not None and self._side is None

    def _load(self, archive: _Archive, split: Split) -> npt.NDArray[Any]:
        """Keep the pictures of the split, and return its labels."""
        names = ("train",) if split == "train" else ("val", "test")
        name = next((n for n in names if {f"x_{n}", f"{n}_bytes"} & archive.keys), "")
        self._split = name or split
        if f"x_{name}" in archive.keys:
            self._images = _pixels(archive.array(f"x_{name}"), self._name)
        elif f"{name}_bytes" in archive.keys:
            self._bytes = archive.array(f"{name}_bytes")
            self._offsets = archive.array(f"{name}_offsets")
            _check_encoded(self._bytes, self._offsets, self._name)
        elif {"image", "label"} <= archive.keys:
            self._images = _pixels(archive.array("image"), self._name)
            return archive.array("label")
        else:
            raise ValueError(
                f"{self._name} has no {split} part: expected x_{split}, {split}_bytes or image "
                f"among its arrays {', '.join(sorted(archive.keys))}"
            )
        return archive.array(f"y_{name}")

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Pixels:
        """[H, W, C] uint8."""
        if self._bytes is None:
            return self._images[index]
        return decode_rgb(self._encoded(index), self.describe(index), self._side)

    @cached_property
    def identity(self) -> str:
        """See `Source`."""
        arrays = (self._images,) if self._bytes is None else (self._bytes, self._offsets)
        contents = chain.from_iterable(array_content(array) for array in arrays)
        return fingerprint(self.class_names, self.labels, contents)

    def describe(self, index: int) -> str:
        """File, split and number."""
        return f"{self._name}:{self._split}/{index}"

    def _encoded(self, index: int) -> bytes:
        assert self._bytes is not None
        return self._bytes[self._offsets[index] : self._offsets[index + 1]].tobytes()


class _Archive:
    """An open .npz file whose errors are ValueErrors that name it."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        try:
            archive = np.load(path, allow_pickle=False)
        except ValueError:  # NumPy takes it for a pickle
            raise ValueError(f"{path.name} is not an .npz file") from None
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path.name} cannot be read as .npz ({error})") from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{path.name} is a single array, not an .npz file of named arrays")
        self._archive = archive
        self.keys = set(archive.files)

    def array(self, key: str) -> npt.NDArray[Any]:
        if key not in self.keys:
            raise ValueError(f"{self._name} lacks the array {key!r}")
        try:
            return self._archive[key]
        except ValueError as error:  # an array of Python objects
            raise ValueError(f"{self._name}: array {key!r} is not loaded ({error})") from None
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self._name}: array {key!r} is damaged ({error})") from None

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()


def _pixels(images: npt.NDArray[Any], name: str) -> Pixels:
    """[N, H, W] or [N, H, W, C] as [N, H, W, C] uint8."""
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{name}: images must be uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], found "
            f"{images.dtype} of shape {list(images.shape)}"
        )
    return images


def _check_encoded(data: npt.NDArray[Any], offsets: npt.NDArray[Any], name: str) -> None:
    """Offsets must ascend from 0 to the end of the bytes."""
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(f"{name}: its pictures must be uint8 [bytes], found {data.dtype}")
    right = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 0
    ascend = right and (offsets[1:] > offsets[:-1]).all()
    if not ascend or offsets[0] != 0 or offsets[-1] != len(data):
        raise ValueError(
            f"{name}: its offsets do not ascend from 0 to the {len(data)} bytes it has"
        )


def _class_names(archive: _Archive) -> tuple[str, ...]:
    """Names, or the numbers up to the largest label of any split."""
    for key in ("class_names", "wnids"):
        if key in archive.keys:
            return tuple(str(name) for name in archive.array(key))
    labels = [archive.array(key) for key in archive.keys if key.startswith("y_") or key == "label"]
    largest = max(
        (int(part.max()) for part in labels if part.dtype.kind in "iu" and part.size), default=0
    )
    return tuple(map(str, range(largest + 1)))
