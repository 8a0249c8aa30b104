"""Mixed batches: what is in them, against the two sets read alone, on both backends."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import AugmentationConfig, DataConfig, GeneratedConfig, RandAugmentConfig
from pipeline.data.base import TrainLoader
from pipeline.data.loader import open_train_loader
from pipeline.data.memory_loader import MemoryTrainLoader
from pipeline.data.mixing import MixedLoader, check_batch_size
from pipeline.data.order import GeneratedOrder
from pipeline.data.pictures import open_pictures
from pipeline.distributed import World
from pipeline.types import Batch
from tests.data import betons

pytestmark = pytest.mark.timeout(600)
ALONE = World(rank=0, size=1, local_rank=0)
REAL, GENERATED = 70, 26


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A real and a generated .beton of three classes."""
    folder = tmp_path_factory.mktemp("sets")
    found = []
    for seed, (name, count) in enumerate((("real", REAL), ("generated", GENERATED))):
        images = betons.pictures(count, 8, 8, 3, seed)
        path = betons.write(folder / f"{name}.beton", images, [i % 3 for i in range(count)])
        found.append(str(path))
    return found[0], found[1]


def open_mixed(
    sets: tuple[str, str],
    batch_size: int = 24,
    ratio: str = "1:1",
    world: World = ALONE,
    backend: str = "memory",
    own: AugmentationConfig | None = None,
    **augmentation,
) -> TrainLoader:
    generated = GeneratedConfig(path=sets[1], ratio=ratio, augmentation=own)
    data = DataConfig(
        train=sets[0], backend=backend, workers=1, generated=generated,
        augmentation=AugmentationConfig(**augmentation),
    )  # fmt: skip
    return open_train_loader(data, 8, batch_size, 5, world)


@pytest.fixture
def opened() -> Iterator[list[TrainLoader]]:
    loaders: list[TrainLoader] = []
    yield loaders
    for loader in loaders:
        loader.close()


def assert_equal(one: Batch, other: Batch) -> None:
    for mine, theirs in zip(one.fields(), other.fields(), strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)


@pytest.mark.parametrize(("ratio", "batch", "pattern"), [
    ("1:1", 24, [0, 1]), ("1:3", 16, [0, 1, 1, 1]), ("3:2", 20, [0, 0, 0, 1, 1]),
])  # fmt: skip
def test_a_batch_holds_both_in_the_ratio(
    sets: tuple[str, str], opened: list[TrainLoader], ratio: str, batch: int, pattern: list[int]
) -> None:
    loader = open_mixed(sets, batch, ratio)
    opened.append(loader)
    assert isinstance(loader, MixedLoader)
    groups = batch // len(pattern)
    real = groups * pattern.count(0)
    assert loader.steps_per_epoch == REAL // real, "an epoch is a pass over the real images"
    info = loader.info.generated
    assert info is not None and info.of_batch(batch) == batch - real
    assert loader.info.num_samples == REAL and info.num_samples == GENERATED
    pictures = [open_pictures(path, "train", 8, "train") for path in sets]
    used: list[int] = []
    for epoch in range(3):
        seen: list[int] = []
        for mixed in loader.epoch(epoch):
            assert mixed.is_generated.tolist() == [bool(p) for p in pattern] * groups
            assert ((mixed.sample_ids >= REAL) == mixed.is_generated).all()
            for image, label, number, is_generated in zip(*mixed.fields(), strict=True):
                own = pictures[int(is_generated)]
                index = int(number) - REAL * int(is_generated)
                assert np.array_equal(image.permute(1, 2, 0).numpy(), own.picture(index))
                assert label == own.labels[index]
            seen += mixed.sample_ids[~mixed.is_generated].tolist()
            used += (mixed.sample_ids[mixed.is_generated] - REAL).tolist()
        assert len(set(seen)) == len(seen) == REAL // real * real
    order = GeneratedOrder(GENERATED, batch - real, 5, loader.steps_per_epoch)
    assert used == [int(i) for e in range(3) for i in order.epoch(e)["sample"].reshape(-1)]


def test_both_backends_give_the_same_batches(
    sets: tuple[str, str], opened: list[TrainLoader]
) -> None:
    pytest.importorskip("ffcv")
    how = {"crop_padding": 1, "flip": True, "randaugment": RandAugmentConfig(), "cutout": 3}
    ffcv, memory = (open_mixed(sets, backend=backend, **how) for backend in ("ffcv", "memory"))
    opened += [ffcv, memory]
    assert not isinstance(ffcv._generated, MemoryTrainLoader)
    assert isinstance(memory._generated, MemoryTrainLoader)
    assert ffcv.info == memory.info
    for epoch in range(2):
        for one, other in zip(ffcv.epoch(epoch), memory.epoch(epoch), strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_any_world_from_any_step_sees_the_same_global_batches(
    sets: tuple[str, str], opened: list[TrainLoader], world: int
) -> None:
    alone = open_mixed(sets, flip=True)
    ranks = [open_mixed(sets, flip=True, world=World(r, world, r)) for r in range(world)]
    opened += [alone, *ranks]
    for start in (0, 3):
        expected = list(alone.epoch(1))[start:]
        parts = zip(*(rank.epoch(1, start) for rank in ranks), strict=True)
        for one, together in zip(expected, parts, strict=True):
            assert_equal(
                one, Batch(*map(torch.cat, zip(*(p.fields() for p in together), strict=True)))
            )
            # Also every micro-batch has the ratio.
            for micro in together[0].split(12 // world):
                assert micro.is_generated.float().mean() == 0.5


def test_generated_images_have_the_augmentation_of_the_real_ones_without_randaugment(
    sets: tuple[str, str], opened: list[TrainLoader]
) -> None:
    both = {"crop_padding": 1, "flip": True, "cutout": 3}
    loaders = [
        open_mixed(sets, randaugment=RandAugmentConfig(), **both),
        open_mixed(sets, **both),
        open_mixed(sets, own=AugmentationConfig(), **both),
        open_mixed(sets),
    ]
    opened += loaders
    by_default, without, own, plain = (next(iter(loader.epoch(0))) for loader in loaders)
    made = plain.is_generated
    assert torch.equal(by_default.images[made], without.images[made])
    assert not torch.equal(by_default.images[~made], without.images[~made])
    assert torch.equal(own.images[made], plain.images[made])
    assert torch.equal(own.images[~made], without.images[~made])
    assert not torch.equal(without.images[made], plain.images[made])


def test_leaving_early_ends_both_parts(sets: tuple[str, str], opened: list[TrainLoader]) -> None:
    loader = open_mixed(sets)
    opened.append(loader)
    closed = []

    class Part:
        info, steps_per_epoch = loader.info, loader.steps_per_epoch

        def __init__(self, name: str) -> None:
            self.name = name

        def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
            try:
                for batch in loader.epoch(epoch, start_step):
                    yield Batch(*(field[::2] for field in batch.fields()))
            finally:
                closed.append(self.name)

        def close(self) -> None:
            closed.append(f"{self.name} for good")

    info = loader.info.generated
    assert info is not None
    mixed = MixedLoader(Part("real"), Part("generated"), info)
    batches = mixed.epoch(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert sorted(closed) == ["generated", "real"]
    mixed.close()
    assert closed[2:] == ["real for good", "generated for good"]


@given(
    st.integers(1, 3000), st.integers(1, 8), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)
)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_a_batch_that_falls_into_whole_groups_is_taken_and_others_name_the_nearest(
    batch: int, world: int, accumulation: int, real: int, generated: int
) -> None:
    common = np.gcd(real, generated)
    ratio = (real // common, generated // common)

    def whole(size: int) -> bool:
        """Both parts of every micro-batch of every rank are whole numbers, by their own count."""
        parts = world * accumulation
        return size > 0 and all(size * part % (sum(ratio) * parts) == 0 for part in ratio)

    if whole(batch):
        check_batch_size(batch, world, accumulation, ratio)
        return
    with pytest.raises(ValueError, match=f"real and generated images {ratio[0]}:{ratio[1]}") as no:
        check_batch_size(batch, world, accumulation, ratio)
    named = [int(word) for word in str(no.value).rsplit("take ", 1)[1].split(" or ")]
    below = [size for size in range(1, batch) if whole(size)]
    above = next(size for size in range(batch, 10**6) if whole(size))
    assert named == [*below[-1:], above]
