"""What is refused when a loader is opened, and in which words; the choice of the backend."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DataConfig
from pipeline.data.loader import open_block_loader, open_train_loader
from pipeline.data.memory_loader import MemoryTrainLoader
from pipeline.data.workers import worker_count
from pipeline.distributed import World
from tests.data import betons

ALONE = World(rank=0, size=1, local_rank=0)


def open_train(spec: str | None, size: int = 8, batch: int = 10, world: int = 1, **data):
    return open_train_loader(DataConfig(train=spec, **data), size, batch, 0, World(0, world, 0))


@pytest.fixture(scope="module")
def rgb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("betons") / "train.beton"
    return betons.write(path, betons.pictures(40, 8, 8, 3), [0, 1] * 20)


def test_the_backend_is_ffcv_for_betons_and_memory_for_the_rest(rgb: Path) -> None:
    ffcv = open_train(str(rgb))
    assert type(ffcv).__name__ == "FfcvTrainLoader"
    memory = open_train("digits")
    assert isinstance(memory, MemoryTrainLoader)
    for loader in (ffcv, memory):
        loader.close()
    assert isinstance(open_train(str(rgb), backend="memory"), MemoryTrainLoader)
    with pytest.raises(ValueError, match=r"reads \.beton files, not digits.*--source digits"):
        open_train("digits", backend="ffcv")


def test_without_ffcv_auto_takes_memory_and_ffcv_is_refused(
    rgb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.data.ffcv_loader", raising=False)
    monkeypatch.delitem(sys.modules, "pipeline.data.ops", raising=False)
    monkeypatch.setitem(sys.modules, "ffcv", None)
    monkeypatch.setitem(sys.modules, "ffcv.loader", None)
    assert isinstance(open_train(str(rgb)), MemoryTrainLoader)
    with pytest.raises(ValueError, match=r"FFCV is not installed.*make setup.*backend memory"):
        open_train(str(rgb), backend="ffcv")


def test_missing_data_and_unknown_sources_are_named(rgb: Path) -> None:
    with pytest.raises(ValueError, match=r"'data\.train' is missing"):
        open_train(None)
    with pytest.raises(ValueError, match=r"trian\.beton.*did you mean .*train\.beton"):
        open_train(str(rgb.with_name("trian.beton")))
    with pytest.raises(ValueError, match=r"'digit'.*did you mean digits"):
        open_train("digit")
    with pytest.raises(ValueError, match=r"'digit'.*did you mean digits"):
        open_block_loader("digit", "val", 8)


def test_batches_that_cannot_be_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"batch_size 10 cannot be divided among 3 processes"):
        open_train("digits", world=3)
    with pytest.raises(ValueError, match=r"batch_size 1438 is larger than the 1437 images"):
        open_train("digits", batch=1438)
    open_train("digits", batch=100).close()
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "37 of 1437 images" in said
    open_train("digits", batch=1437).close()
    assert capsys.readouterr().out == ""


def test_images_of_another_size_are_refused(rgb: Path) -> None:
    for opens in (lambda size: open_train(str(rgb), size), lambda s: open_train("digits", s)):
        for size in (7, 9):
            with pytest.raises(ValueError, match=f"8x8 pixels.*takes {size}x{size}"):
                opens(size)
    with pytest.raises(ValueError, match=r"8x8 pixels.*takes 9x9"):
        open_block_loader(str(rgb), "val", 9)


def test_photographs_for_another_size_are_refused(tmp_path: Path) -> None:
    photos = betons.smooth_pictures([(18, 24), (30, 18), (18, 18)])  # for images of 16
    varied = betons.write(tmp_path / "varied.beton", photos, [0, 1, 0])
    open_train(str(varied), 16, 2).close()
    for size in (8, 18, 32):
        with pytest.raises(ValueError, match=f"18x24 pixels.*takes {size}x{size}.*--size {size}"):
            open_train(str(varied), size, 2)
    with pytest.raises(ValueError, match=r"18x24 pixels.*takes 18x18.*--preset exact --size 18"):
        open_block_loader(str(varied), "val", 18)


@pytest.mark.parametrize(("shape", "size"), [((18, 24), 16), ((256, 256), 224)])
def test_raw_photographs_may_all_have_one_size(
    shape: tuple[int, int], size: int, tmp_path: Path
) -> None:
    photos = betons.smooth_pictures([shape] * 4)
    path = betons.write(tmp_path / "same.beton", photos, [0, 1, 0, 1])
    loader = open_train(str(path), size, 2)
    assert next(iter(loader.epoch(0))).images.shape == (2, 3, size, size)
    loader.close()
    with pytest.raises(ValueError, match=rf"{shape[0]}x{shape[1]} pixels.*--preset train"):
        open_train(str(path), size - 1 - size // 2, 2)


def test_one_odd_image_in_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, image=np.zeros((5, 8, 9, 3), np.uint8), label=np.zeros(5, np.int64))
    with pytest.raises(ValueError, match=r"x\.npz.*8x9 pixels.*takes 8x8"):
        open_block_loader(f"npz:{path}", "val", 8)


def test_jpegs_are_not_certified_and_not_read_without_ffcv(tmp_path: Path) -> None:
    path = betons.write(
        tmp_path / "j.beton", betons.smooth_pictures([(18, 18)] * 9), [0, 1, 2] * 3, "jpg"
    )
    with pytest.raises(ValueError, match=r"JPEG.*tools/write_beton\.py .*--preset exact"):
        open_block_loader(str(path), "val", 16)
    with pytest.raises(ValueError, match=r"JPEG.*only FFCV reads"):
        open_train(str(path), 16, 3, backend="memory")
    open_train(str(path), 16, 3, backend="ffcv").close()


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.001])
def test_an_incomplete_file_is_refused(rgb: Path, keep: float, tmp_path: Path) -> None:
    data = rgb.read_bytes()
    path = tmp_path / "train.beton"
    path.write_bytes(data[: int(len(data) * keep)])
    for backend in ("ffcv", "memory"):
        with pytest.raises(ValueError, match=r"train\.beton is incomplete"):
            open_train(str(path), backend=backend)
    with pytest.raises(ValueError, match=r"train\.beton is incomplete"):
        open_block_loader(str(path), "val", 8)


def test_workers_are_capped_and_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)))
    assert worker_count(0) == 12 and worker_count(5) == 5 and worker_count(99) == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert worker_count(0) == 1 and worker_count(2) == 2


def test_opening_the_room_loads_neither_ffcv_nor_numba() -> None:
    code = "import sys, pipeline.data; print(sorted({'ffcv', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
