"""The memory loader: batches against NumPy and against FFCV's, order, threads, errors."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import AugmentationConfig, DataConfig
from pipeline.data import kernels, pictures
from pipeline.data.base import TrainLoader
from pipeline.data.loader import open_train_loader
from pipeline.data.memory_loader import MemoryTrainLoader
from pipeline.data.order import Order
from pipeline.data.pixels import train_photo
from pipeline.data.sources import open_source
from pipeline.distributed import World
from pipeline.types import Batch
from tests.data import betons
from tests.shared_data import shared_file

pytestmark = pytest.mark.timeout(120)
ALONE = World(rank=0, size=1, local_rank=0)


def open_loader(
    spec: str,
    size: int,
    batch_size: int,
    backend: str = "memory",
    world: World = ALONE,
    padding: int = 0,
    flip: bool = False,
    workers: int = 2,
) -> TrainLoader:
    augmentation = AugmentationConfig(crop_padding=padding, flip=flip)
    data = DataConfig(train=spec, backend=backend, workers=workers, augmentation=augmentation)
    return open_train_loader(data, size, batch_size, 5, world)


def digits(**options) -> TrainLoader:
    return open_loader("digits", 8, 100, padding=1, flip=True, **options)


def assert_equal(one: Batch, other: Batch) -> None:
    for mine, theirs in zip(one.fields(), other.fields(), strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)


def test_digits_are_the_sources_pixels() -> None:
    loader = open_loader("digits", 8, 100)
    source = open_source("digits", "train")
    seen = []
    for batch, order in zip(loader.epoch(3), Order(1437, 100, 5).epoch(3), strict=True):
        assert batch.images.shape == (100, 1, 8, 8) and batch.images.is_contiguous()
        assert batch.sample_ids.tolist() == order["sample"].tolist()
        assert batch.labels.tolist() == source.labels[batch.sample_ids].tolist()
        for image, index in zip(batch.images.numpy(), batch.sample_ids.tolist(), strict=True):
            assert np.array_equal(image[0], source.image(index)[..., 0])
        seen += batch.sample_ids.tolist()
    assert len(seen) == len(set(seen)) == 1400 == 100 * loader.steps_per_epoch
    loader.close()


@pytest.mark.parametrize("world", [2, 4])
def test_any_world_sees_the_same_global_batches(world: int) -> None:
    alone = digits()
    ranks = [digits(world=World(rank, world, rank)) for rank in range(world)]
    for one, parts in zip(
        alone.epoch(1), zip(*(r.epoch(1) for r in ranks), strict=True), strict=True
    ):
        assert_equal(
            one, Batch(*map(torch.cat, zip(*(part.fields() for part in parts), strict=True)))
        )
    for loader in (alone, *ranks):
        loader.close()


def test_a_start_in_mid_epoch_is_the_tail_of_the_epoch() -> None:
    loader = digits()
    whole = list(loader.epoch(2))
    for step in (1, 7, 14):
        rest = list(loader.epoch(2, step))
        assert len(rest) == 14 - step
        for one, other in zip(rest, whole[step:], strict=True):
            assert_equal(one, other)
    loader.close()


def test_threads_do_not_change_the_batches() -> None:
    one, many = digits(workers=1), digits(workers=2)
    for mine, theirs in zip(one.epoch(0), many.epoch(0), strict=True):
        assert_equal(mine, theirs)
    one.close()
    many.close()


def test_leaving_early_leaves_no_thread() -> None:
    before = threading.active_count()
    loader = digits()
    for attempt in range(20):
        batches = loader.epoch(attempt)
        next(batches)
        batches.close()
    assert threading.active_count() <= before + 2
    loader.close()
    assert threading.active_count() == before


def test_an_error_reaches_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(images: np.ndarray, keys: np.ndarray) -> None:
        raise ArithmeticError("the kernel is broken")

    monkeypatch.setattr("pipeline.data.memory_loader.after_crop", lambda *_: (broken,))
    loader = digits()
    with pytest.raises(ArithmeticError, match="the kernel is broken"):
        list(loader.epoch(0))
    loader.close()


def test_batches_do_not_share_memory_with_the_data() -> None:
    loader = open_loader("digits", 8, 100)
    first = next(loader.epoch(0))
    before = first.images.clone()
    first.images.zero_()
    assert torch.equal(next(loader.epoch(0)).images, before)
    loader.close()


def test_pictures_that_find_no_room_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "KEPT_BYTES", 10 * 64)
    some = pictures.open_pictures("digits", "train", 8, "train")
    everything = [some.picture(i).copy() for i in range(30)]
    assert len(some._kept) == 10
    assert all(np.array_equal(some.picture(i), image) for i, image in enumerate(everything))


def test_photographs_are_resized_as_the_train_preset_does() -> None:
    spec = f"folder:{shared_file('unit_mini.tar')}"
    source = open_source(spec, "train")
    loader = open_loader(spec, 64, 20, flip=True)
    for batch, order in zip(loader.epoch(0), Order(60, 20, 5).epoch(0), strict=True):
        for image, (sample, key) in zip(batch.images.numpy(), order.tolist(), strict=True):
            photo = train_photo(source.image(sample), 64)
            expected = np.empty((64, 64, 3), np.uint8)
            kernels.crop(photo, np.uint64(key), 0, expected)
            if kernels.uniform(np.uint64(key), 64) < 0.5:
                expected = expected[:, ::-1]
            assert np.array_equal(image, expected.transpose(2, 0, 1))
    loader.close()


@pytest.mark.parametrize("kind", ["raw RGB 32", "grey 8", "photographs"])
def test_ffcv_and_memory_give_the_same_batches(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    size, padding = {"raw RGB 32": (32, 4), "grey 8": (8, 1), "photographs": (16, 0)}[kind]
    if kind == "photographs":
        images = betons.smooth_pictures([(18 + i % 2 * 4, 18 + (i + 1) % 2 * i) for i in range(70)])
    else:
        images = betons.pictures(70, size, size, 3 if size == 32 else 1)
    path = betons.write(tmp_path / "x.beton", images, [i % 3 for i in range(70)])
    ffcv = open_loader(str(path), size, 16, "auto", padding=padding, flip=True)
    memory = open_loader(str(path), size, 16, "memory", padding=padding, flip=True)
    assert not isinstance(ffcv, MemoryTrainLoader) and isinstance(memory, MemoryTrainLoader)
    assert ffcv.info == memory.info
    for epoch in range(2):
        for one, other in zip(ffcv.epoch(epoch), memory.epoch(epoch), strict=True):
            assert_equal(one, other)
    ffcv.close()
    memory.close()


def test_train_presets_photographs_through_ffcv(tmp_path: Path) -> None:
    """JPEG is lossy: the same windows of the same photographs, nearly the same pixels."""
    pytest.importorskip("ffcv")
    from pipeline.data.betons.storage import storage_of
    from pipeline.data.betons.write import write_beton

    spec = f"folder:{shared_file('unit_mini.tar')}"
    write_beton(spec, "train", storage_of("train", 64), tmp_path / "train.beton", workers=2)
    ffcv = open_loader(str(tmp_path / "train.beton"), 64, 20, "ffcv", flip=True)
    memory = open_loader(spec, 64, 20, flip=True)
    for one, other in zip(ffcv.epoch(0), memory.epoch(0), strict=True):
        assert torch.equal(one.sample_ids, other.sample_ids)
        assert torch.equal(one.labels, other.labels)
        difference = (one.images.float() - other.images.float()).abs().mean(dim=(1, 2, 3))
        assert difference.max() < 15
    ffcv.close()
    memory.close()
