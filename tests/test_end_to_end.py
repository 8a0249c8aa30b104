"""Photographs of 224 px through every door: write, train, certify, check."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared_data import shared_file

ROOT = Path(__file__).parents[1]

CONFIG = """
name: photos
data: {train: TRAIN, val: VAL, augmentation: {flip: true}}
model: {name: liresnet, num_classes: 10, image_size: 224, depth: 2, width: 16, features: 64}
optimizer: {clip_norm: 3.0}
training: {epochs: 10, batch_size: 30, validate_every: 5}
certification: {epsilons: ["36/255", "1.0"]}
"""


def door(path: str, *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, path, *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{path}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_from_photographs_to_a_checked_certificate(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    source = f"folder:{shared_file('unit_mini.tar')}"
    for split, preset in (("train", "train"), ("val", "exact")):
        door("tools/write_beton.py", "--source", source, "--split", split, "--preset", preset,
             "--out", tmp_path / f"{split}.beton")  # fmt: skip
    config = CONFIG.replace("TRAIN", str(tmp_path / "train.beton"))
    (tmp_path / "photos.yaml").write_text(config.replace("VAL", str(tmp_path / "val.beton")))
    said = door(
        "launch/train.py", "--config", tmp_path / "photos.yaml", "--output", tmp_path / "runs"
    )
    assert "training for 20 steps" in said

    run = tmp_path / "runs" / "photos"
    certificate = json.loads((run / "certificate" / "certificate.json").read_text())
    assert certificate["num_images"] == 30
    assert certificate["input"]["shape"] == [3, 224, 224]
    assert certificate["class_names"][0] == "n01440764"
    said = door("tools/verify_certificate.py", run / "certificate", "--data",
                tmp_path / "val.beton")  # fmt: skip
    assert "VERIFIED" in said.splitlines()[-1]

    again = tmp_path / "again"
    door("tools/certify_val.py", "--run", run, "--data", tmp_path / "val.beton",
         "--epsilon", "72/255", "--out", again)  # fmt: skip
    assert json.loads((again / "certificate.json").read_text())["epsilons"] == ["72/255"]
