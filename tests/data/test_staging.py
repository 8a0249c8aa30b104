"""Copies on the node's disk: once, whole, checked, and for all ranks or none."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config import DataConfig
from pipeline.data import staging
from pipeline.data.betons.format import card_path
from pipeline.data.loader import open_block_loader, open_train_loader
from pipeline.data.staging import staged
from pipeline.distributed import World
from tests.data.betons import pictures, write


@pytest.fixture
def beton(tmp_path: Path) -> Path:
    return write(tmp_path / "x.beton", pictures(16, 8, 8, 3), [i % 2 for i in range(16)])


def test_the_copy_is_used_and_used_again(
    beton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERTLINE_TEST_DISK", str(tmp_path / "node"))
    copy = Path(staged(str(beton), "$CERTLINE_TEST_DISK/betons"))
    assert copy.parent == tmp_path / "node" / "betons"
    assert copy.read_bytes() == beton.read_bytes()
    before = copy.stat()
    assert staged(str(beton), str(copy.parent)) == str(copy)
    assert copy.stat().st_mtime_ns == before.st_mtime_ns and copy.stat().st_ino == before.st_ino
    assert not list(copy.parent.glob("*.partial"))


def test_a_changed_file_is_copied_anew(beton: Path, tmp_path: Path) -> None:
    first = staged(str(beton), str(tmp_path / "node"))
    write(beton, pictures(16, 8, 8, 3, seed=1), [0] * 16)
    os.utime(beton, ns=(1, 1))
    second = staged(str(beton), str(tmp_path / "node"))
    assert second != first and Path(second).read_bytes() == beton.read_bytes()


def test_the_copy_is_checked_against_the_data_card(beton: Path, tmp_path: Path) -> None:
    names = ["cat", "dog"]
    right = hashlib.sha256(beton.read_bytes()).hexdigest()
    card_path(beton).write_text(json.dumps({"class_names": names, "file_sha256": "0" * 64}))
    with pytest.raises(ValueError, match="not the file that its data card speaks of"):
        staged(str(beton), str(tmp_path / "node"))
    assert not list((tmp_path / "node").glob("*.beton"))
    card_path(beton).write_text(json.dumps({"class_names": names, "file_sha256": right}))
    copy = Path(staged(str(beton), str(tmp_path / "node")))
    assert json.loads(card_path(copy).read_text())["class_names"] == names


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("$CERTLINE_NOT_SET/x", "a variable that is not set here"),
        ("/proc/none", "cannot be copied there"),
    ],
)
def test_a_folder_that_cannot_be_used(beton: Path, folder: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        staged(str(beton), folder)


def test_a_disk_that_is_too_small(
    beton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=0)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"only 0\.0 GB are free"):
        staged(str(beton), str(tmp_path / "node"))


def test_two_at_once_copy_once(beton: Path, tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(staged(str(beton), str(tmp_path / "node"))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1


def test_loaders_read_the_copy_and_name_the_original(beton: Path, tmp_path: Path) -> None:
    data = DataConfig(train=str(beton), stage=str(tmp_path / "node"), backend="memory")
    train = open_train_loader(data, 8, 8, 0, World(0, 1, 0))
    val = open_block_loader(str(beton), "val", 8, data)
    beton.unlink()
    assert len(list(train.epoch(0))) == 2 and len(list(val.blocks([0]))) == 1
    assert train.info.spec == val.info.spec == str(beton)
    train.close()
    val.close()


def test_a_source_is_not_copied(tmp_path: Path) -> None:
    assert staged("digits", str(tmp_path / "node")) == "digits"
    assert not (tmp_path / "node").exists()
