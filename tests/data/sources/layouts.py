"""Data sets in their official layouts, small, written by the tests."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from tests.data.test_sources import make_folder, make_tar

WNIDS = ("n01440764", "n02085620", "n03126707", "n03710637")
"""Sorted; the third is one of the two cranes' namesakes."""
NAMES = ("tench", "Chihuahua", "crane", "maillot")
DEVKIT_ORDER = (2, 0, 3, 1)
"""The devkit's number 1 is the third wnid, and so on."""


def jpeg(seed: int, height: int = 70, width: int = 90) -> bytes:
    """A smooth picture, so that JPEG keeps it small; different for every seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    data = io.BytesIO()
    small.resize((width, height)).save(data, "JPEG")
    return data.getvalue()


def pixels(data: bytes) -> np.ndarray:
    """As PIL has them."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def tar_bytes(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, (name, data) in enumerate(files.items()):
            method = zipfile.ZIP_STORED if index % 2 else zipfile.ZIP_DEFLATED
            archive.writestr(name, data, compress_type=method)
    return path


def make_tar_gz(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def train_files() -> dict[str, bytes]:
    """`<wnid>/<wnid>_<number>.JPEG`, two a class."""
    return {
        f"{wnid}/{wnid}_{number}.JPEG": jpeg(10 * label + number)
        for label, wnid in enumerate(WNIDS)
        for number in (7, 31)
    }


VAL_LABELS = (3, 0, 2, 1, 0, 3, 1, 2)
"""Of val's pictures in their order."""


def val_name(number: int) -> str:
    """Of a picture, from 1."""
    return f"ILSVRC2012_val_{number:08}.JPEG"


def val_files() -> dict[str, bytes]:
    return {val_name(i): jpeg(100 + i) for i in range(1, len(VAL_LABELS) + 1)}


def solution_csv() -> bytes:
    rows = [
        f"ILSVRC2012_val_{i:08},{WNIDS[label]} 85 1 499 272 {WNIDS[label]} 1 2 3 4 "
        for i, label in enumerate(VAL_LABELS, 1)
    ]
    return "\n".join(["ImageId,PredictionString", *reversed(rows), ""]).encode()


def devkit_files(numbers: dict[int, int] | None = None) -> dict[str, bytes]:
    """The two files that matter, below `ILSVRC2012_devkit_t12`.

    Args:
        numbers: other devkit numbers for some pictures.
    """
    kinds = [
        ("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object),
        ("num_children", object), ("children", object), ("wordnet_height", object),
        ("num_train_images", object),
    ]  # fmt: skip
    rows = [
        (number, WNIDS[label], f"{NAMES[label]}, something else", "a gloss", 0, [], 0, 1300)
        for number, label in enumerate(DEVKIT_ORDER, 1)
    ]
    inner = (len(rows) + 1, "n00001740", "entity", "all", 2, [1, 2], 5, 0)
    table = np.array([*rows, inner], dtype=kinds).reshape(-1, 1)
    meta = io.BytesIO()
    savemat(meta, {"synsets": table})
    number_of = {label: number for number, label in enumerate(DEVKIT_ORDER, 1)}
    truth = [number_of[label] for label in VAL_LABELS]
    for picture, number in (numbers or {}).items():
        truth[picture - 1] = number
    data = "ILSVRC2012_devkit_t12/data"
    return {
        "ILSVRC2012_devkit_t12/readme.txt": b"about",
        f"{data}/meta.mat": meta.getvalue(),
        f"{data}/ILSVRC2012_validation_ground_truth.txt": "".join(
            f"{number}\n" for number in truth
        ).encode(),
    }


def official_archives(home: Path) -> Path:
    """A folder with the tar of tars, the tar of val, and the devkit, as image-net.org has them."""
    home.mkdir(parents=True, exist_ok=True)
    inner: dict[str, dict[str, bytes]] = {}
    for file, data in train_files().items():
        wnid, _, name = file.partition("/")
        inner.setdefault(wnid, {})[name] = data
    # The official outer archive is not in order either.
    outer = {f"{wnid}.tar": tar_bytes(inner[wnid]) for wnid in sorted(inner, reverse=True)}
    make_tar(home / "ILSVRC2012_img_train.tar", outer)
    make_tar(home / "ILSVRC2012_img_val.tar", val_files())
    make_tar_gz(home / "ILSVRC2012_devkit_t12.tar.gz", devkit_files())
    return home


def under(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


__all__ = ["make_folder", "make_tar"]
