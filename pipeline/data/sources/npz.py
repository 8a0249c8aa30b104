"""`npz:PATH`: images and labels in one NumPy archive. Three layouts are read:

- `x_train`, `y_train`, `x_test` (or `x_val`), ...: pixels [N, H, W] or [N, H, W, C] uint8;
- `train_bytes`, `train_offsets`, `y_train`, ...: encoded pictures, number i is
  bytes[offsets[i]:offsets[i+1]]; grey ones among them become RGB;
- `image`, `label`: the whole file is the split that is asked for (generated data).

Class names are taken from `class_names` or `wnids`. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.base import Pixels, Split, check_labels, decode_rgb, existing


class NpzArchive:
    """Images of one size from an .npz file. See `Source`.

    Raises:
        ValueError: the file is missing, damaged, of another layout, or a label is out of range.
    """

    photographs = False
    passed_over: tuple[str, ...] = ()

    def __init__(self, path: Path, split: Split) -> None:
        self._name = path.name
        try:
            with np.load(existing(path, f"npz:{path}"), allow_pickle=False) as archive:
                self._load(archive, split)
        except (OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
            raise ValueError(f"data npz:{path} cannot be read: {error}") from None

    def _load(self, archive: np.lib.npyio.NpzFile, split: Split) -> None:
        keys = set(archive.files)
        name = next((s for s in _names(split) if {f"x_{s}", f"{s}_bytes"} & keys), "")
        self._split = name or split
        self._bytes: npt.NDArray[np.uint8] | None = None
        if f"x_{name}" in keys:
            self._images, labels = archive[f"x_{name}"], archive[f"y_{name}"]
        elif f"{name}_bytes" in keys:
            self._bytes, self._offsets = archive[f"{name}_bytes"], archive[f"{name}_offsets"]
            labels = archive[f"y_{name}"]
            _check_offsets(self._offsets, len(self._bytes), self._name)
        elif {"image", "label"} <= keys:
            self._images, labels = archive["image"], archive["label"]
        else:
            raise ValueError(
                f"{self._name} has no {split} part: expected x_{split}, {split}_bytes or image "
                f"among its arrays {', '.join(sorted(keys))}"
            )
        if self._bytes is None:
            self._images = _pixels(self._images, self._name)
        count = len(self._images) if self._bytes is None else len(self._offsets) - 1
        self.class_names = _class_names(archive, keys)
        where = f"{self._name} ({self._split})"
        self.labels = check_labels(labels, count, len(self.class_names), where)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Pixels:
        """[H, W, C] uint8."""
        if self._bytes is None:
            return self._images[index]
        data = self._bytes[self._offsets[index] : self._offsets[index + 1]]
        return decode_rgb(data.tobytes(), self.describe(index))

    def describe(self, index: int) -> str:
        """File, split and number."""
        return f"{self._name}:{self._split}/{index}"


def _names(split: Split) -> tuple[str, ...]:
    return ("train",) if split == "train" else ("val", "test")


def _pixels(images: npt.NDArray[np.generic], name: str) -> Pixels:
    """[N, H, W] or [N, H, W, C] as [N, H, W, C] uint8."""
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{name}: images must be uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], found "
            f"{images.dtype} of shape {list(images.shape)}"
        )
    return images.astype(np.uint8, copy=False)


def _check_offsets(offsets: npt.NDArray[np.generic], length: int, name: str) -> None:
    """Offsets must ascend from 0 to the end of the bytes."""
    right = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 1
    if not right or offsets[0] != 0 or offsets[-1] != length or (np.diff(offsets) <= 0).any():
        raise ValueError(f"{name}: its offsets do not ascend from 0 to the {length} bytes it has")


def _class_names(archive: np.lib.npyio.NpzFile, keys: set[str]) -> tuple[str, ...]:
    """Names, or the numbers up to the largest label of any split."""
    for key in ("class_names", "wnids"):
        if key in keys:
            return tuple(str(name) for name in archive[key])
    labels = [archive[key] for key in keys if key.startswith("y_") or key == "label"]
    largest = max(
        (int(part.max()) for part in labels if part.dtype.kind in "iu" and part.size), default=0
    )
    return tuple(map(str, range(largest + 1)))
