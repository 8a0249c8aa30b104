"""Who takes part in the benchmark: our loaders of each file, and PIL in torch's DataLoader."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from pipeline.config import AugmentationConfig, DataConfig, ResizedCropConfig
from pipeline.data.base import DatasetInfo, GeneratedInfo, TrainLoader
from pipeline.data.benchmark.pil import Crop, PilPictures
from pipeline.data.memory_loader import MemoryTrainLoader
from pipeline.data.mixing import MixedLoader
from pipeline.data.order import Order
from pipeline.data.pictures import BetonPictures, open_pictures
from pipeline.distributed import World

BASELINE = "PIL DataLoader"
_ALONE = World(rank=0, size=1, local_rank=0)
_PREFETCH_FACTOR = 2  # torch's default


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    betons: Sequence[Path]
    folder: Path | None
    """Of pictures, for PIL; None for no baseline."""
    workers: Sequence[int] = (1, 2)
    size: int = 224
    crop: Crop = "resized"
    """`resized`: RandomResizedCrop; `random`: shorter side 256 (for 224) and a random crop. Both
    are followed by a random flip."""
    batch_size: int = 64
    batches: int = 20
    """Of a slice."""
    rounds: int = 5
    generated: Path | None = None
    """A .beton mixed 1:1 into the batches of each of `betons`: one contender more for each. Its
    loader has as many threads again."""


@dataclass
class Contender:
    """A loader, and what was measured of it."""

    name: str
    workers: int
    first_batch_seconds: float
    """From opening to the first batch; compiled kernels come from numba's cache if it is warm."""
    batches: Iterator[Any] = field(repr=False)
    ahead: int
    """Batches that it builds before they are asked for, at the most."""
    close: Callable[[], None] = field(repr=False)
    images_per_second: list[float] = field(default_factory=list)
    """Of each round."""
    images_per_cpu_second: list[float] = field(default_factory=list)
    """Of each round; worker processes are counted."""


@dataclass(frozen=True)
class _RepeatedOrder(Order):
    """Epochs one after the other as if they were one, `steps` at least."""

    steps: int = 0

    def epoch(
        self, epoch: int, start_step: int = 0, rank: int = 0, world: int = 1
    ) -> npt.NDArray[Any]:
        count = -(-self.steps // self.steps_per_epoch)
        return np.concatenate([super(_RepeatedOrder, self).epoch(i) for i in range(count)])


def open_contenders(settings: Settings) -> Iterator[Contender]:
    """Open one after the other, each as far as its first batch.

    Raises:
        ValueError: no such data, or a file that FFCV is needed for.
    """
    # Baselines first: their worker processes are forked, before there are threads of loaders.
    yield from _baselines(settings)
    yield from _loaders(settings)


def _steps(settings: Settings, ahead: int) -> int:
    """Batches that a contender gives in the whole run."""
    return 1 + ahead + settings.rounds * (settings.batches + ahead)


def _order(settings: Settings, images: int, ahead: int, what: str) -> Order:
    if images < settings.batch_size:
        raise ValueError(
            f"--batch-size {settings.batch_size} is larger than the {images} images of {what}"
        )
    return _RepeatedOrder(images, settings.batch_size, 0, _steps(settings, ahead))


def _baselines(settings: Settings) -> Iterator[Contender]:
    """PIL in torch's DataLoader, for each number of workers."""
    if settings.folder is None:
        return
    pictures = PilPictures(settings.folder, settings.size, settings.crop)
    for workers in settings.workers:
        began = time.perf_counter()
        ahead = _PREFETCH_FACTOR * workers
        order = _order(settings, len(pictures), ahead, str(settings.folder))
        loader: DataLoader[Any] = DataLoader(
            pictures,
            batch_sampler=order.epoch(0)["sample"].tolist(),
            num_workers=workers,
            prefetch_factor=_PREFETCH_FACTOR,
        )
        batches = iter(loader)
        next(batches)
        first = time.perf_counter() - began
        yield Contender(BASELINE, workers, first, batches, ahead, lambda: None)


def _loaders(settings: Settings) -> Iterator[Contender]:
    """Our loaders of each file, for each number of workers; in memory only files of raw pixels."""
    resized = ResizedCropConfig() if settings.crop == "resized" else None
    augmentation = AugmentationConfig(flip=True, resized_crop=resized)
    generated = None if settings.generated is None else _file(settings, settings.generated)
    for path in settings.betons:
        pictures, info = _file(settings, path)
        for workers in settings.workers:
            for name, loader in (("FFCV", _ffcv), ("memory", _memory)):
                if name == "memory" and not pictures.is_raw:
                    continue
                opened = partial(loader, pictures, info, augmentation, workers)
                yield _opened(f"{name} {path.name}", workers, opened, info, settings)
                if settings.generated and generated and (name == "FFCV" or generated[0].is_raw):
                    second = partial(loader, *generated, augmentation, workers)
                    both = partial(_mixed, opened, second, generated[1])
                    title = f"{name} {path.name} + {settings.generated.name} 1:1"
                    yield _opened(title, workers, both, info, settings)


def _file(settings: Settings, path: Path) -> tuple[BetonPictures, DatasetInfo]:
    """An open file, to be read at the size that is measured."""
    pictures = open_pictures(
        str(path), "train", settings.size, "train", any_size=settings.crop == "resized"
    )
    assert isinstance(pictures, BetonPictures)
    info = DatasetInfo(
        spec=str(path),
        num_samples=len(pictures.labels),
        image_shape=(pictures.channels, settings.size, settings.size),
        num_classes=len(pictures.class_names),
        class_names=pictures.class_names,
        exact=False,
    )
    return pictures, info


def _opened(
    name: str,
    workers: int,
    loader: Callable[[Order], TrainLoader],
    info: DatasetInfo,
    settings: Settings,
) -> Contender:
    began = time.perf_counter()
    ahead = 2 + max(workers, 3)  # FFCV: a queue of 3 and one being built; memory: workers + 1
    opened = loader(_order(settings, info.num_samples, ahead, info.spec))
    batches = opened.epoch(0)
    next(batches)
    first = time.perf_counter() - began
    return Contender(name, workers, first, batches, ahead, opened.close)


def _ffcv(
    pictures: BetonPictures,
    info: DatasetInfo,
    augmentation: AugmentationConfig,
    workers: int,
    order: Order,
) -> TrainLoader:
    try:
        from pipeline.data.ffcv_loader import FfcvTrainLoader
    except ImportError as error:
        raise ValueError(
            f"FFCV is not installed ({error}), and {info.spec} is to be read by it: run make setup "
            "as root"
        ) from None
    data = DataConfig(augmentation=augmentation)
    return FfcvTrainLoader(info.spec, pictures.labels, None, info, order, _ALONE, data, workers)


def _memory(
    pictures: BetonPictures,
    info: DatasetInfo,
    augmentation: AugmentationConfig,
    workers: int,
    order: Order,
) -> TrainLoader:
    return MemoryTrainLoader(pictures, info, order, _ALONE, augmentation, workers)


def _mixed(
    real: Callable[[Order], TrainLoader],
    generated: Callable[[Order], TrainLoader],
    info: DatasetInfo,
    order: Order,
) -> TrainLoader:
    """Half of each batch from one file, half from the other, of which `info` speaks."""
    half = replace(order, batch_size=order.batch_size // 2)
    facts = GeneratedInfo(info.spec, info.num_samples, (1, 1), sha256="")
    second = replace(half, size=info.num_samples)
    if second.steps_per_epoch == 0:
        raise ValueError(
            f"--batch-size {order.batch_size} has {second.batch_size} generated images, and "
            f"{info.spec} has {info.num_samples}"
        )
    return MixedLoader(real(half), generated(second), facts)
