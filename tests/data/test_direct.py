"""Reading past the page cache gives the same bytes, and the same batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import AugmentationConfig, DataConfig
from pipeline.data.direct import ALIGNMENT, DirectFile
from pipeline.data.loader import open_train_loader
from pipeline.distributed import World
from tests.data.betons import pictures, write

SIZE = 3 * ALIGNMENT + 1234


@pytest.fixture
def file(tmp_path: Path) -> tuple[DirectFile, np.ndarray]:
    content = np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)
    path = tmp_path / "x"
    content.tofile(path)
    try:
        return DirectFile(path), content
    except ValueError as error:
        pytest.skip(str(error))


def test_any_piece_is_read(file: tuple[DirectFile, np.ndarray]) -> None:
    direct, content = file
    edges = [0, 1, ALIGNMENT - 1, ALIGNMENT, ALIGNMENT + 1, 2 * ALIGNMENT, SIZE - 1]
    for start in edges:
        for stop in [*edges, SIZE]:
            if stop > start:
                assert (direct.read(start, stop - start) == content[start:stop]).all()


def test_threads_do_not_share_memory(file: tuple[DirectFile, np.ndarray]) -> None:
    direct, content = file

    def check(start: int) -> bool:
        return all((direct.read(start, 500) == content[start : start + 500]).all() for _ in "12345")

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(0, SIZE - 500, 97)))


def test_what_lies_beyond_the_end_is_an_error(file: tuple[DirectFile, np.ndarray]) -> None:
    direct, _ = file
    with pytest.raises(OSError, match=r"cut short|ends before"):
        direct.read(SIZE - 10, 11)
    with pytest.raises(OSError, match=r"cut short|ends before"):
        direct.read(4 * ALIGNMENT, 1)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"take --data\.reading cached"):
        DirectFile(tmp_path / "none")


@pytest.mark.parametrize("mode", ["raw", "jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_those_of_the_page_cache(mode: str, channels: int, tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    if channels == 1 and mode == "jpg":
        pytest.skip("grey pictures are not stored as JPEG")
    labels = list(range(40))
    path = write(tmp_path / "x.beton", pictures(40, 12, 12, channels), labels, mode)
    augmentation = AugmentationConfig(crop_padding=2, flip=True)
    loaders = [
        open_train_loader(
            DataConfig(train=str(path), augmentation=augmentation, reading=reading),
            12,
            8,
            0,
            World(0, 1, 0),
        )
        for reading in ("cached", "direct")
    ]
    for ours, theirs in zip(*(loader.epoch(1) for loader in loaders), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
    for loader in loaders:
        loader.close()


def test_only_ffcv_reads_directly() -> None:
    data = DataConfig(train="digits", reading="direct")
    with pytest.raises(ValueError, match=r"data\.reading is direct, which only FFCV"):
        open_train_loader(data, 8, 8, 0, World(0, 1, 0))
