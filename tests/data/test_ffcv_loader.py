"""The FFCV loader against NumPy: its pixels, its errors, its threads."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ffcv")

from pipeline.config import AugmentationConfig, DataConfig
from pipeline.data import kernels
from pipeline.data.base import DatasetInfo
from pipeline.data.order import Order
from pipeline.data.workers import torch_threads_kept
from pipeline.distributed import World
from pipeline.types import Batch
from tests.data.betons import pictures, smooth_pictures, write

with torch_threads_kept():
    from pipeline.data import ffcv_loader
    from pipeline.data.ffcv_loader import FfcvTrainLoader

pytestmark = pytest.mark.timeout(120)  # a hang is a failure of its own
ALONE = World(rank=0, size=1, local_rank=0)
PLAIN = AugmentationConfig()
CROP_AND_FLIP = AugmentationConfig(crop_padding=2, flip=True)
COUNT, SIZE = 50, 12
LABELS = [i % 7 for i in range(COUNT)]


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("betons")
    return write(folder / "raw.beton", pictures(COUNT, SIZE, SIZE, 3), LABELS)


def open_loader(
    path: Path,
    batch_size: int = 10,
    augmentation: AugmentationConfig = PLAIN,
    world: World = ALONE,
    workers: int = 2,
    shape: tuple[int, int, int] = (3, SIZE, SIZE),
    count: int = COUNT,
) -> FfcvTrainLoader:
    info = DatasetInfo(str(path), count, shape, 7, tuple("abcdefg"), False)
    order = Order(count, batch_size, seed=5)
    labels = np.array(LABELS[:count] if count <= COUNT else [0] * count)
    data = DataConfig(augmentation=augmentation)
    return FfcvTrainLoader(str(path), labels, None, info, order, world, data, workers)


def by_sample(batches: list[Batch]) -> dict[int, tuple[bytes, int]]:
    return {
        int(i): (image.numpy().tobytes(), int(label))
        for batch in batches
        for image, label, i in zip(batch.images, batch.labels, batch.sample_ids, strict=True)
    }


def reference(images: list[np.ndarray], order: np.ndarray, size: int, padding: int, flip: bool):
    """Crops and flips in NumPy, [n, C, size, size]."""
    found = []
    for sample, key in order.tolist():
        key = np.uint64(key)
        image = np.pad(images[sample], ((padding, padding), (padding, padding), (0, 0)))
        y = int(kernels.uniform(key, 0) * (image.shape[0] - size + 1))
        x = int(kernels.uniform(key, 1) * (image.shape[1] - size + 1))
        image = image[y : y + size, x : x + size]
        if flip and kernels.uniform(key, 64) < 0.5:
            image = image[:, ::-1]
        found.append(image.transpose(2, 0, 1))
    return np.stack(found)


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if isinstance(t, ffcv_loader._Epoch)]


def test_batches_are_fresh_tensors_of_the_right_kind(beton: Path) -> None:
    loader = open_loader(beton)
    batches = list(loader.epoch(0))
    loader.close()
    assert len(batches) == loader.steps_per_epoch == 5
    assert len({batch.images.data_ptr() for batch in batches}) == 5
    for batch in batches:
        assert batch.images.shape == (10, 3, SIZE, SIZE)
        assert batch.images.dtype == torch.uint8 and batch.images.is_contiguous()
        assert batch.labels.dtype == batch.sample_ids.dtype == torch.int64
        assert batch.is_generated.dtype == torch.bool and not batch.is_generated.any()
        assert batch.labels.tolist() == [LABELS[i] for i in batch.sample_ids]
    assert sorted(i for batch in batches for i in batch.sample_ids.tolist()) == list(range(COUNT))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_numpys(tmp_path: Path, channels: int) -> None:
    images = pictures(COUNT, SIZE, SIZE, channels, seed=1)
    path = write(tmp_path / "x.beton", images, LABELS)
    loader = open_loader(path, augmentation=CROP_AND_FLIP, shape=(channels, SIZE, SIZE))
    for epoch in (0, 1):
        for batch, order in zip(loader.epoch(epoch), Order(COUNT, 10, 5).epoch(epoch), strict=True):
            expected = reference(images, order, SIZE, 2, True)
            assert np.array_equal(batch.images.numpy(), expected)
    loader.close()


def test_photographs_of_many_sizes_raw_and_jpeg(tmp_path: Path) -> None:
    sizes = [(20 + i % 5, 26 - i % 7) for i in range(COUNT)]
    images = smooth_pictures(sizes)
    augmentation = AugmentationConfig(flip=True)
    found = {}
    for mode in ("raw", "jpg"):
        path = write(tmp_path / f"{mode}.beton", images, LABELS, mode)
        loader = open_loader(path, augmentation=augmentation, shape=(3, 16, 16))
        found[mode] = np.concatenate([batch.images.numpy() for batch in loader.epoch(3)])
        loader.close()
    expected = reference(images, Order(COUNT, 10, 5).epoch(3).ravel(), 16, 0, True)
    assert np.array_equal(found["raw"], expected)
    difference = np.abs(found["jpg"].astype(int) - expected)
    assert 0 < difference.mean() < 4  # the same windows, up to the loss of JPEG


@pytest.mark.parametrize("world", [2, 3, 4])
def test_any_world_sees_the_same_global_batches(beton: Path, world: int) -> None:
    alone = open_loader(beton, 12, CROP_AND_FLIP)
    ranks = [open_loader(beton, 12, CROP_AND_FLIP, World(r, world, r)) for r in range(world)]
    together = zip(*(loader.epoch(1) for loader in ranks), strict=True)
    for one, parts in zip(alone.epoch(1), together, strict=True):
        for name in ("images", "labels", "sample_ids"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined, getattr(one, name))
    for loader in (alone, *ranks):
        loader.close()


def test_a_start_in_mid_epoch_is_the_tail_of_the_epoch(beton: Path) -> None:
    loader = open_loader(beton, augmentation=CROP_AND_FLIP)
    whole = list(loader.epoch(4))
    for step in (1, 4, 5):
        rest = list(loader.epoch(4, step))
        assert len(rest) == 5 - step
        for one, other in zip(rest, whole[step:], strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.sample_ids, other.sample_ids)
    loader.close()


def test_pixels_depend_on_seed_epoch_and_sample_alone(beton: Path) -> None:
    found = []
    for batch_size, workers in ((10, 1), (25, 3), (50, 8)):
        loader = open_loader(beton, batch_size, CROP_AND_FLIP, workers=workers)
        found.append((by_sample(list(loader.epoch(0))), by_sample(list(loader.epoch(1)))))
        loader.close()
    assert found[0] == found[1] == found[2]
    changed = [found[0][0][i][0] != found[0][1][i][0] for i in range(COUNT)]
    assert np.mean(changed) > 0.8  # another epoch, another crop


def test_two_loaders_at_once(beton: Path) -> None:
    one, two = open_loader(beton, augmentation=CROP_AND_FLIP), open_loader(beton)
    for epoch in range(5):
        pairs = list(zip(one.epoch(epoch), two.epoch(epoch), strict=True))
        assert all(torch.equal(a.sample_ids, b.sample_ids) for a, b in pairs)
    one.close()
    two.close()


def test_nothing_is_compiled_in_a_second_epoch(beton: Path) -> None:
    from numba.core import event

    loader = open_loader(beton, augmentation=CROP_AND_FLIP)
    list(loader.epoch(0))
    with event.install_recorder("numba:compile") as recorder:
        list(loader.epoch(1))
    loader.close()
    assert recorder.buffer == []


def test_torchs_threads_are_left_alone(beton: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        loader = open_loader(beton)
        list(loader.epoch(0))
        loader.close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_kernel_reaches_the_consumer(
    beton: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(images: np.ndarray, keys: np.ndarray) -> None:
        raise ArithmeticError("the kernel is broken")

    monkeypatch.setattr("pipeline.data.ops.after_crop", lambda *_: (broken,))
    loader = open_loader(beton)
    with pytest.raises(ArithmeticError, match="the kernel is broken") as caught:
        list(loader.epoch(0))
    assert "raw.beton" in caught.value.__notes__[0]
    assert loader_threads() == []
    loader.close()


def test_a_damaged_jpeg_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.beton", smooth_pictures([(64, 64)] * COUNT), LABELS, "jpg")
    loader = open_loader(path, shape=(3, 64, 64))
    start = int(loader._ffcv.reader.metadata["f0"]["data_ptr"][17])
    loader.close()
    data = bytearray(path.read_bytes())
    data[start + 2 : start + 40] = bytes(38)
    path.write_bytes(data)
    loader = open_loader(path, shape=(3, 64, 64))
    with pytest.raises(ValueError, match="JPEG of sample 17 is damaged"):
        list(loader.epoch(0))
    loader.close()


def test_leaving_early_leaves_no_thread(beton: Path) -> None:
    loader = open_loader(beton)
    list(loader.epoch(0))
    before = threading.active_count()
    for attempt in range(20):
        batches = loader.epoch(attempt)
        next(batches)
        batches.close()
    assert loader_threads() == [] and threading.active_count() <= before + 2
    abandoned = loader.epoch(0)
    next(abandoned)
    loader.close()
    assert loader_threads() == [] and threading.active_count() < before
    assert list(abandoned) == []


def test_a_slow_consumer_gets_everything(beton: Path) -> None:
    loader = open_loader(beton, batch_size=5)
    seen = []
    for batch in loader.epoch(0):
        time.sleep(0.03)
        seen += batch.sample_ids.tolist()
    loader.close()
    assert sorted(seen) == list(range(COUNT))


def test_a_loader_thread_that_dies_does_not_leave_the_consumer_waiting(
    beton: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Callable[[ffcv_loader._Epoch], None] = lambda self: None  # noqa: E731
    monkeypatch.setattr(ffcv_loader._Epoch, "run", nothing)
    loader = open_loader(beton)
    with pytest.raises(RuntimeError, match="is gone"):
        next(loader.epoch(0))
    loader.close()
