"""The images that a certificate speaks of, from a file that somebody else may have written.

Notable: the data set is identified by its content alone: the sha256 over
b"certline dataset 1\n" and, for every sample in index order, the label (int64), height, width and
channels (three uint32), and the pixels (uint8, height by width by channels), all little-endian.
A file that holds several splits is searched for the one with the right hash. Where a certificate
speaks of some of the file's classes only, it names them, and the images of those classes, their
labels counted in the order named, are the data set.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.verify.beton import BetonImages
from pipeline.verify.refusal import Refusal, quote, require

PREFIX = b"certline dataset 1\n"
NPZ_PAIRS = (
    ("image", "label"),
    ("x_test", "y_test"),
    ("x_val", "y_val"),
    ("x_train", "y_train"),
)
LARGEST_NPZ = 2**36


@dataclass(frozen=True)
class ArrayImages:
    """Images and labels in memory."""

    images: np.ndarray
    """uint8 [N, H, W, C]."""
    labels: np.ndarray
    """[N] integers."""

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, C]."""
        return self.images[index]

    def label(self, index: int) -> int:
        """The class of one image."""
        return int(self.labels[index])


class ChosenImages:
    """The images of some classes, in the order of the whole set.

    Args:
        images: the whole set.
        classes: labels there; the position in the list is the label here.
    """

    def __init__(self, images: ArrayImages | BetonImages, classes: Sequence[int]) -> None:
        self._images = images
        new = {label: position for position, label in enumerate(classes)}
        labels = [images.label(index) for index in range(len(images))]
        self._indices = [index for index, label in enumerate(labels) if label in new]
        self._labels = [new[labels[index]] for index in self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, C]."""
        return self._images.image(self._indices[index])

    def label(self, index: int) -> int:
        """The position of the image's class among the chosen."""
        return self._labels[index]


Images = ArrayImages | BetonImages | ChosenImages


def open_images(
    path: Path,
    digest: str,
    count: int,
    classes: Sequence[int] | None,
    advance: Callable[[int, int], None],
) -> Images:
    """The data set with the content hash `digest` in a .npz or exact .beton file.

    Args:
        count: how many images it must have.
        classes: those of the file that are meant, in order; None for all.

    Raises:
        Refusal: no split in the file has that content, or the file is damaged.
    """
    if path.suffix == ".beton":
        whole: Sequence[tuple[str, ArrayImages | BetonImages]] = [(path.name, BetonImages(path))]
    elif path.suffix == ".npz":
        whole = _read_npz(path)
    else:
        raise Refusal(f"{quote(path.name)} is neither an exact .beton nor an .npz file")
    candidates: Sequence[tuple[str, Images]] = whole
    if classes is not None:
        candidates = [(name, ChosenImages(images, classes)) for name, images in whole]
    hashes = []
    for name, images in candidates:
        if len(images) != count and len(candidates) > 1:
            continue
        found = content_hash(images, advance)
        if found == digest:
            return images
        hashes.append(f"{name} has {found}")
    raise Refusal(
        f"the data is another data set than the certified one: its hash must be {digest}, but "
        + ("; ".join(hashes) or f"nothing in {quote(path.name)} has {count} images")
    )


def content_hash(images: Images, advance: Callable[[int, int], None]) -> str:
    """sha256 of labels, shapes and pixels."""
    digest = hashlib.sha256(PREFIX)
    for index in range(len(images)):
        pixels = images.image(index)
        digest.update(struct.pack("<q3I", images.label(index), *pixels.shape))
        digest.update(pixels.tobytes())
        advance(index + 1, len(images))
    return digest.hexdigest()


def _read_npz(path: Path) -> list[tuple[str, ArrayImages]]:
    """Every pair of arrays in the file that can be images and labels."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {item.filename: item.file_size for item in archive.infolist()}
        require(sum(sizes.values()) <= LARGEST_NPZ, f"{quote(path.name)} is too large")
        with np.load(path, allow_pickle=False) as arrays:
            found = [
                (f"{path.name}:{pair[0]}", _arrays(arrays[pair[0]], arrays[pair[1]], pair))
                for pair in NPZ_PAIRS
                if f"{pair[0]}.npy" in sizes and f"{pair[1]}.npy" in sizes
            ]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise Refusal(f"{quote(path.name)} cannot be read: {quote(error)}") from None
    pairs = ", ".join("/".join(pair) for pair in NPZ_PAIRS)
    require(bool(found), f"{quote(path.name)} has none of the pairs of arrays {pairs}")
    return list(found)


def _arrays(images: np.ndarray, labels: np.ndarray, names: tuple[str, str]) -> ArrayImages:
    """uint8 [N, H, W] or [N, H, W, C] with as many labels."""
    require(
        images.dtype == np.uint8 and images.ndim in (3, 4),
        f"array {names[0]} is {images.dtype} {list(images.shape)}, not uint8 [N, H, W(, C)]",
    )
    flat = labels.reshape(-1)
    require(
        np.issubdtype(labels.dtype, np.integer) and len(flat) == len(images),
        f"array {names[1]} has not one integer for each image",
    )
    return ArrayImages(images if images.ndim == 4 else images[..., None], flat.astype(np.int64))
