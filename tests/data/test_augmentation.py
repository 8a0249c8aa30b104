"""From the configuration to the kernels: order, draws, and the same batches of both loaders."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import AugmentationConfig, DataConfig
from pipeline.data import kernels
from pipeline.data.augmentation import after_crop, cropping
from pipeline.data.base import TrainLoader
from pipeline.data.loader import open_train_loader
from pipeline.data.order import AUGMENTATION, sample_hashes
from pipeline.data.randaugment import randaugment_table
from pipeline.distributed import World
from pipeline.types import Batch
from tests.data import betons

pytestmark = pytest.mark.timeout(180)

KEYS = sample_hashes(AUGMENTATION, 1, 2, np.arange(64))
SMALL = {"flip": True, "randaugment": {}, "cutout": 6}
"""What follows either crop."""
EVERYTHING = {
    "padded": {**SMALL, "crop_padding": 2},
    "resized": {**SMALL, "resized_crop": {"scale": [0.2, 1.0]}},
}


def images(count: int = len(KEYS), size: int = 16, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (count, size, size, channels), dtype=np.uint8)


def augmented(before: np.ndarray, keys: np.ndarray, **options) -> np.ndarray:
    """Everything that is configured, picture by picture and then together."""
    config = AugmentationConfig(**options)
    after = np.empty_like(before)
    for picture, key, out in zip(before, keys, after, strict=True):
        kernels.cut(picture, key, *cropping(config), out)
    for kernel in after_crop(config, before.shape[1]):
        kernel(after, keys)
    return after


def open_loader(
    path: Path, how: str, backend: str, workers: int = 2, world: World | None = None, size: int = 16
) -> TrainLoader:
    world = world or World(rank=0, size=1, local_rank=0)
    augmentation = AugmentationConfig(**EVERYTHING[how])
    data = DataConfig(train=str(path), backend=backend, workers=workers, augmentation=augmentation)
    return open_train_loader(data, size, 16, 5, world)


def assert_equal(one: Batch, other: Batch) -> None:
    for mine, theirs in zip(one.fields(), other.fields(), strict=True):
        assert torch.equal(mine, theirs)


def test_nothing_configured_is_a_copy() -> None:
    assert after_crop(AugmentationConfig(), 16) == ()
    assert np.array_equal(augmented(images(), KEYS), images())


def test_the_order_is_crop_flip_randaugment_cutout() -> None:
    config = AugmentationConfig(**EVERYTHING["padded"])
    expected = np.empty_like(images())
    for picture, key, out in zip(images(), KEYS, expected, strict=True):
        kernels.crop(picture, key, 2, out)
    kernels.flip(expected, KEYS)
    kernels.randaugment(expected, KEYS, 2, *randaugment_table(config.randaugment, 16))
    kernels.cutout(expected, KEYS, 6)
    assert np.array_equal(augmented(images(), KEYS, **EVERYTHING["padded"]), expected)


@pytest.mark.parametrize("size", [16, 33])
@pytest.mark.parametrize("how", EVERYTHING)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_depends_on_its_own_picture_and_key_alone(
    how: str, channels: int, size: int
) -> None:
    before = images(size=size, channels=channels)
    together = augmented(before, KEYS, **EVERYTHING[how])
    backwards = augmented(before[::-1].copy(), KEYS[::-1].copy(), **EVERYTHING[how])[::-1]
    alone = [augmented(before[i : i + 1], KEYS[i : i + 1], **EVERYTHING[how])[0] for i in range(20)]
    assert np.array_equal(together, backwards)
    assert np.array_equal(together[:20], alone)
    others = augmented(before, KEYS + np.uint64(1), **EVERYTHING[how])
    assert (together != others).any(axis=(1, 2, 3)).mean() > 0.9


def test_what_is_switched_on_leaves_the_draws_of_the_others() -> None:
    """A black square lies where it lies, and an image is mirrored or not, whatever else is on."""
    black = (augmented(images(), KEYS, cutout=5) == 0).all(axis=3)
    for others in ({"flip": True}, {"randaugment": {}}, {"resized_crop": {}, "flip": True}):
        assert (augmented(images(), KEYS, cutout=5, **others)[black] == 0).all()
    flipped = augmented(images(), KEYS, flip=True)
    kernels.cutout(flipped, KEYS, 5)
    assert np.array_equal(augmented(images(), KEYS, flip=True, cutout=5), flipped)


def test_the_kernels_draws_are_unrelated() -> None:
    firsts = [kernels._CROP, kernels._RESIZED_CROP, kernels._FLIP, kernels._CUTOUT]
    firsts.append(kernels._RANDAUGMENT)
    lengths = [2, 4 * 10, 1, 2]  # of all but the last range, which is open
    ends = [first + length for first, length in zip(firsts, lengths, strict=False)]
    assert all(end <= first for end, first in zip(ends, firsts[1:], strict=True))
    keys = sample_hashes(AUGMENTATION, 0, 0, np.arange(4000))
    draws = np.array([[kernels.uniform(key, n) for n in firsts] for key in keys])
    assert np.abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.06


def test_a_square_larger_than_the_images_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"data\.augmentation\.cutout' has the value 17, more than"
    ):
        after_crop(AugmentationConfig(cutout=17), 16)


@pytest.mark.parametrize(
    ("how", "kind"),
    [(how, kind) for how in EVERYTHING for kind in ("RGB", "grey")] + [("resized", "many sizes")],
)
def test_ffcv_and_memory_give_the_same_batches(how: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    if kind == "many sizes":
        pictures = betons.smooth_pictures([(18 + i % 9, 18 + i % 7 * (i % 2)) for i in range(50)])
    else:
        pictures = betons.pictures(50, 16, 16, 3 if kind == "RGB" else 1)
    path = betons.write(tmp_path / "x.beton", pictures, [i % 3 for i in range(50)])
    loaders = [
        open_loader(path, how, backend, workers)
        for backend in ("ffcv", "memory")
        for workers in (1, 2)
    ]
    for epoch in range(2):
        for one, *others in zip(*(loader.epoch(epoch) for loader in loaders), strict=True):
            for other in others:
                assert_equal(one, other)
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize("backend", ["ffcv", "memory"])
def test_two_ranks_see_the_batches_of_one(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    path = betons.write(tmp_path / "x.beton", betons.pictures(50, 16, 16, 3), [0, 1] * 25)
    alone = open_loader(path, "resized", backend)
    ranks = [open_loader(path, "resized", backend, world=World(r, 2, r)) for r in range(2)]
    together = zip(*(loader.epoch(1) for loader in ranks), strict=True)
    for one, parts in zip(alone.epoch(1), together, strict=True):
        fields = zip(*(part.fields() for part in parts), strict=True)
        assert_equal(one, Batch(*map(torch.cat, fields)))
    for loader in (alone, *ranks):
        loader.close()


@pytest.mark.parametrize("how", EVERYTHING)
@pytest.mark.parametrize("backend", ["ffcv", "memory"])
def test_nothing_is_compiled_in_a_second_epoch(backend: str, how: str, tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    from numba.core import event

    path = betons.write(tmp_path / "x.beton", betons.pictures(50, 16, 16, 3), [0, 1] * 25)
    loader = open_loader(path, how, backend)
    list(loader.epoch(0))
    with event.install_recorder("numba:compile") as recorder:
        list(loader.epoch(1))
    loader.close()
    assert recorder.buffer == []
