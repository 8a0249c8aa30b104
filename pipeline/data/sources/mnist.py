"""`mnist:PATH`, `fashion_mnist:PATH`: the official idx files, gzipped or not.

Notable:
- Both data sets come in files of the same names and sizes, so the spec says which it is: it decides
  the class names and which of torchvision's folders is looked into (`MNIST/raw`,
  `FashionMNIST/raw`). `mnist:` of something called Fashion is refused.
- PATH is a folder, an uncompressed tar or a zip. Files that are not gzipped go first.
- The validation split is the official test set (t10k). Pictures keep their one channel.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.arrays import PictureArray
from pipeline.data.sources.base import Split, existing
from pipeline.data.sources.open_tree import open_tree
from pipeline.data.sources.tree import Tree, has_file, join

CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    ),
}  # fmt: skip
FOLDERS = {"mnist": ("", "raw", "MNIST/raw"), "fashion_mnist": ("", "raw", "FashionMNIST/raw")}
PREFIX = {"train": "train", "val": "t10k"}
UBYTE = 8
"""idx's code of uint8."""


def open_mnist(kind: str, path: Path, split: Split) -> PictureArray:
    """MNIST or Fashion-MNIST.

    Args:
        kind: `mnist` or `fashion_mnist`.

    Raises:
        ValueError: a file is missing, cut, or not what it should be, or the counts differ.
    """
    spec = f"{kind}:{path}"
    existing(path, spec)
    if kind == "mnist" and any("fashion" in name.lower() for name in path.absolute().parts[-2:]):
        raise ValueError(
            f"data {spec}: this is called Fashion, and its classes are no digits: write "
            f"fashion_mnist:{path}"
        )
    tree = open_tree(path, spec)
    images = _array(tree, kind, f"{PREFIX[split]}-images", 3, spec)
    labels = _array(tree, kind, f"{PREFIX[split]}-labels", 1, spec)
    if len(images) != len(labels):
        raise ValueError(
            f"data {spec}: {len(images):,} pictures and {len(labels):,} labels: the files are not "
            "of one data set"
        )
    return PictureArray(f"{path.name}:{split}", images[..., None], labels, CLASSES[kind])


def _array(tree: Tree, kind: str, stem: str, dimensions: int, spec: str) -> npt.NDArray[np.uint8]:
    """The array in the idx file that is called so in any of the usual spellings."""
    names = [f"{stem}{dot}idx{dimensions}-ubyte{gz}" for gz in ("", ".gz") for dot in "-."]
    places = [join(folder, name) for folder in FOLDERS[kind] for name in names]
    file = next((place for place in places if has_file(tree, place)), None)
    if file is None:
        raise ValueError(
            f"data {spec}: no {names[0]} in {tree.path}, nor {names[0]}.gz: download it there"
        )
    where = tree.describe(file)
    try:
        data = tree.read(file)
        return _idx(gzip.decompress(data) if file.endswith(".gz") else data, dimensions)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(
            f"data {spec}: {where} cannot be read ({error}): download it again"
        ) from None


def _idx(data: bytes, dimensions: int) -> npt.NDArray[np.uint8]:
    """The uint8 array in an idx file: two zero bytes, type, rank, sizes (big-endian), values.

    Raises:
        ValueError: it is none, of other type or rank, or shorter or longer than it says.
    """
    header = 4 + 4 * dimensions
    expected = bytes([0, 0, UBYTE, dimensions])
    if data[:4] != expected:
        raise ValueError(f"it begins with {data[:4].hex()} and not with {expected.hex()}")
    if len(data) < header:
        raise ValueError("it is cut")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) - header != (size := int(np.prod(shape, dtype=object))):
        raise ValueError(f"it has {len(data) - header:,} values and its header says {size:,}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
