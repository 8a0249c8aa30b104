"""`cifar10:PATH`, `cifar100:PATH`: the official archives, python or binary version.

Notable:
- PATH is `cifar-10-python.tar.gz` (or `-binary`, or the same as .tar or .zip), the folder unpacked
  from it, or the folder that either lies in. What is unpacked goes before what is not, and python
  before binary; they hold the same pictures in the same order.
- The validation split is the official test set.
- CIFAR-100 has its 100 fine labels.
- The python version is pickled; see `unpickle`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.arrays import PictureArray
from pipeline.data.sources.base import Pixels, Split, existing
from pipeline.data.sources.open_tree import open_tree
from pipeline.data.sources.tree import Tree, has_file, join
from pipeline.data.sources.unpickle import unpickle_arrays

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """One version of one of the data sets."""

    folder: str
    archive: str
    """Without .tar.gz."""
    parts: dict[Split, tuple[str, ...]]
    names: str
    """The file with the class names."""
    names_key: str
    labels_key: str
    """Both of the python version; "" in the binary one."""
    label_bytes: int
    """In front of each picture in the binary version; the last one counts."""


_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_BINARY: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"{name}.bin" for name in _TRAIN),
    "val": ("test_batch.bin",),
}
LAYOUTS = {
    "cifar10": (
        _Layout(
            "cifar-10-batches-py", "cifar-10-python", {"train": _TRAIN, "val": ("test_batch",)},
            "batches.meta", "label_names", "labels", 0,
        ),
        _Layout(
            "cifar-10-batches-bin", "cifar-10-binary", _BINARY, "batches.meta.txt", "", "", 1
        ),
    ),
    "cifar100": (
        _Layout(
            "cifar-100-python", "cifar-100-python", {"train": ("train",), "val": ("test",)},
            "meta", "fine_label_names", "fine_labels", 0,
        ),
        _Layout(
            "cifar-100-binary", "cifar-100-binary", {"train": ("train.bin",), "val": ("test.bin",)},
            "fine_label_names.txt", "", "", 2,
        ),
    ),
}  # fmt: skip
CLASSES = {"cifar10": 10, "cifar100": 100}


def open_cifar(kind: str, path: Path, split: Split) -> PictureArray:
    """CIFAR.

    Args:
        kind: `cifar10` or `cifar100`.

    Raises:
        ValueError: PATH holds neither version, or a file is missing, damaged or not what it seems.
    """
    spec = f"{kind}:{path}"
    tree, folder, layout = _find(existing(path, spec), kind, spec)
    images, labels = [], []
    for name in layout.parts[split]:
        part = _unpickled if layout.labels_key else _binary
        pixels, numbers = part(_read(tree, join(folder, name), spec), layout, spec, name)
        images.append(pixels)
        labels.append(numbers)
    names = _names(_read(tree, join(folder, layout.names), spec), layout, spec)
    if len(names) != CLASSES[kind]:
        raise ValueError(
            f"data {spec}: {layout.names} has {len(names)} names, not {CLASSES[kind]}: fetch the "
            "archive again"
        )
    where = f"{path.name}:{split}"
    return PictureArray(where, np.concatenate(images), np.concatenate(labels), names)


def _find(path: Path, kind: str, spec: str) -> tuple[Tree, str, _Layout]:
    """Where the files lie, and in which version."""
    layouts = LAYOUTS[kind]
    wanted = {name for layout in layouts for name in _files(layout)}
    tree = open_tree(path, spec, wanted)
    for layout in layouts:
        for folder in ("", layout.folder):
            if any(has_file(tree, join(folder, name)) for name in _files(layout)):
                return tree, folder, layout
    if path.is_dir():
        for layout in layouts:
            for ending in (".tar.gz", ".tgz", ".tar", ".zip"):
                archive = path / (layout.archive + ending)
                if archive.is_file():
                    return _find(archive, kind, spec)
    folders, files = tree.listing("")
    names = {path.name, *folders, *files}
    for other, its in LAYOUTS.items():
        if other != kind and any(name.startswith(its[0].archive[:9]) for name in names):
            raise ValueError(f"data {spec}: no {kind} in {path}: did you mean {other}:{path}?")
    raise ValueError(
        f"data {spec}: no {kind} in {path}: expected {layouts[0].archive}.tar.gz or "
        f"{layouts[1].archive}.tar.gz, unpacked or not"
    )


def _files(layout: _Layout) -> list[str]:
    return [*layout.parts["train"], *layout.parts["val"], layout.names]


def _read(tree: Tree, file: str, spec: str) -> bytes:
    try:
        return tree.read(file)
    except OSError as error:
        raise ValueError(
            f"data {spec}: {tree.describe(file)} cannot be read ({error.strerror or error}): fetch "
            "the archive again"
        ) from None


def _unpickled(
    data: bytes, layout: _Layout, spec: str, name: str
) -> tuple[Pixels, npt.NDArray[np.generic]]:
    """Images [N, 32, 32, 3] and labels [N] of a file of the python version."""
    found = _dict(data, spec, name)
    pixels, labels = found.get("data"), found.get(layout.labels_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError(f"data {spec}: {name} holds no array of uint8 pixels called 'data'")
    if pixels.shape[1] != PIXELS:
        raise ValueError(f"data {spec}: {name} has {pixels.shape[1]} bytes a picture, not {PIXELS}")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise ValueError(
            f"data {spec}: {name} holds no list of {len(pixels)} labels called "
            f"{layout.labels_key!r}"
        )
    return _upright(pixels), np.array(labels)


def _binary(
    data: bytes, layout: _Layout, spec: str, name: str
) -> tuple[Pixels, npt.NDArray[np.generic]]:
    """The same of a file of the binary version."""
    record = layout.label_bytes + PIXELS
    if len(data) % record:
        raise ValueError(
            f"data {spec}: {name} has {len(data)} bytes, no multiple of {record}: fetch it again"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return _upright(records[:, layout.label_bytes :]), records[:, layout.label_bytes - 1]


def _upright(pixels: npt.NDArray[np.uint8]) -> Pixels:
    """Planes [N, 3·32·32] as images [N, 32, 32, 3]."""
    return np.ascontiguousarray(pixels.reshape(-1, *SHAPE).transpose(0, 2, 3, 1))


def _names(data: bytes, layout: _Layout, spec: str) -> list[str]:
    if not layout.names_key:
        return data.decode(errors="replace").split()
    names = _dict(data, spec, layout.names).get(layout.names_key)
    if not isinstance(names, list):
        raise ValueError(f"data {spec}: {layout.names} holds no list {layout.names_key!r}")
    return [n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names]


def _dict(data: bytes, spec: str, name: str) -> dict[str, Any]:
    try:
        return unpickle_arrays(data)
    except ValueError as error:
        raise ValueError(
            f"data {spec}: {name} is not read ({error}): fetch it from the official site"
        ) from None
