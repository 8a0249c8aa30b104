"""Every real data set at hand, and ImageNet's official archives, through every door.

Written, loaded, trained on a little, certified and checked by the commands that people type. The
networks are as small as they can be: what is tested is the way of the data.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.data.sources.layouts import official_archives
from tests.shared_data import shared_file

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.long

CONFIG = """
name: real
data: {train: TRAIN, val: VAL, augmentation: AUGMENTATION}
model: {name: liresnet, num_classes: CLASSES, image_size: SIZE, in_channels: CHANNELS,
        depth: 1, width: 8, features: 32}
optimizer: {lr: 5.0e-3, clip_norm: 3.0}
training: {epochs: 1, batch_size: BATCH}
certification: {epsilons: ["36/255", "0.5"]}
"""
EVERYTHING = "{flip: true, resized_crop: {}, randaugment: {}, cutout: 8}"
CROP = "{flip: true, crop_padding: 4, randaugment: {}, cutout: 8}"


@dataclass(frozen=True)
class Case:
    """One data set."""

    source: str
    """With FILE for the shared file."""
    images: tuple[int, int]
    """Of training and validation."""
    classes: int
    size: int
    channels: int = 3
    batch: int = 256
    preset: str = "train"
    augmentation: str = CROP
    shared: str = ""
    words: tuple[str, ...] = field(default=())
    """For writing the training file."""


CASES = {
    "imagewoof": Case("folder:FILE", (600, 200), 10, 224, batch=50, preset="proportion",
                      augmentation=EVERYTHING, shared="imagewoof_320_sub.tar"),
    "imagenet_native": Case("folder:FILE", (109, 109), 109, 224, batch=50, preset="raw",
                            augmentation="{flip: true}", shared="imagenet1k_native_subset.tar"),
    "tiny_imagenet": Case("npz:FILE", (10_000, 2_000), 200, 64,
                          shared="tiny_imagenet_64_jpeg_10k_2k.npz"),
    "cifar10": Case("npz:FILE", (50_000, 10_000), 10, 32, shared="cifar10_jpeg_full.npz"),
    "mnist": Case("npz:FILE", (60_000, 10_000), 10, 28, 1, shared="mnist.npz",
                  augmentation="{crop_padding: 2}"),
    "fashion_mnist": Case("npz:FILE", (60_000, 10_000), 10, 28, 1, shared="fashion_mnist.npz",
                          augmentation="{crop_padding: 2, flip: true}"),
}  # fmt: skip


def door(path: str, *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, path, *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{path}: {done.stdout}\n{done.stderr}"
    return done.stdout


def write(case: Case, source: str, folder: Path) -> list[dict]:
    """Both files; their data cards."""
    cards = []
    for split, preset, words in (("train", case.preset, case.words), ("val", "exact", ())):
        out = folder / f"{split}.beton"
        door("tools/write_beton.py", "--source", source, "--split", split, "--preset", preset,
             "--out", out, *words)  # fmt: skip
        cards.append(json.loads((folder / f"{split}.beton.json").read_text()))
        door("tools/write_beton.py", "--check", out)
    return cards


def train_certify_check(case: Case, folder: Path) -> dict:
    """The certificate."""
    text = CONFIG
    for word, value in {
        "TRAIN": folder / "train.beton", "VAL": folder / "val.beton", "CLASSES": case.classes,
        "SIZE": case.size, "CHANNELS": case.channels, "BATCH": case.batch,
        "AUGMENTATION": case.augmentation,
    }.items():  # fmt: skip
        text = text.replace(word, str(value))
    (folder / "real.yaml").write_text(text)
    door("launch/train.py", "--config", folder / "real.yaml", "--output", folder / "runs")
    directory = folder / "runs" / "real" / "certificate"
    said = door("tools/verify_certificate.py", directory, "--data", folder / "val.beton")
    assert "VERIFIED" in said.splitlines()[-1]
    certificate: dict = json.loads((directory / "certificate.json").read_text())
    return certificate


@pytest.mark.parametrize("name", CASES)
def test_a_real_data_set(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    case = CASES[name]
    cards = write(case, case.source.replace("FILE", str(shared_file(case.shared))), tmp_path)
    assert tuple(card["num_samples"] for card in cards) == case.images
    assert all(len(card["class_names"]) == case.classes for card in cards)
    assert not any(card["skipped"] for card in cards)
    certificate = train_certify_check(case, tmp_path)
    assert certificate["num_images"] == case.images[1]
    assert certificate["dataset_sha256"] == cards[1]["dataset_sha256"]


def test_odd_photographs(tmp_path: Path) -> None:
    """Grey, tiny, very narrow, very wide, rotated; and a page of HTML that claims to be a JPEG."""
    pytest.importorskip("ffcv")
    with tarfile.open(shared_file("unit_mini.tar")) as archive:
        members = [member for member in archive if "/edge/" in f"/{member.name}"]
        archive.extractall(tmp_path / "photos", members, filter="data")
    (edge,) = (path for path in (tmp_path / "photos").rglob("edge"))
    page = next(folder for folder in sorted(edge.iterdir())) / "zz_page.JPEG"
    page.write_text("<html><body>404 Not Found</body></html>")
    classes = len(list(edge.iterdir()))
    case = Case("", (5, 5), classes, 224, batch=5, augmentation=EVERYTHING,
                words=("--on-error", "skip"))  # fmt: skip
    out = tmp_path / "x.beton"
    words = ("--source", f"folder:{edge}", "--split", "train", "--preset", "train", "--out", out)
    failed = subprocess.run(
        [sys.executable, "tools/write_beton.py", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert failed.returncode == 1 and "zz_page.JPEG cannot be read" in failed.stderr
    assert not out.exists()
    door("tools/write_beton.py", *words, "--on-error", "skip")
    (skipped,) = json.loads((tmp_path / "x.beton.json").read_text())["skipped"]
    assert skipped["picture"].endswith("zz_page.JPEG")
    page.unlink()
    write(case, f"folder:{edge}", tmp_path)
    assert train_certify_check(case, tmp_path)["num_images"] == 5


def test_imagenets_official_archives(tmp_path: Path) -> None:
    """A tar of tars, a flat validation tar and the devkit, read in place."""
    pytest.importorskip("ffcv")
    home = official_archives(tmp_path / "imagenet")
    probe = Case("", (0, 0), 0, 224)
    cards = write(probe, f"imagenet:{home}", tmp_path)
    names = cards[0]["class_names"]
    assert names == cards[1]["class_names"] and all(name.startswith("n0") for name in names)
    case = Case("", (0, 0), len(names), 224, batch=2, augmentation="{flip: true, randaugment: {}}")
    certificate = train_certify_check(case, tmp_path)
    assert certificate["class_names"] == names
    assert certificate["num_images"] == cards[1]["num_samples"]
