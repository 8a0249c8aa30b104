"""Opens the loaders of a run: training batches, real or mixed with generated ones, and blocks.

Everything about a data set that can be wrong for a run is found here, before the first batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import ClassesConfig, DataConfig
from pipeline.data.backends import check_jpegs, check_reading, choose_ffcv, open_reader
from pipeline.data.base import BLOCK, BlockLoader, DatasetInfo, GeneratedInfo, TrainLoader
from pipeline.data.classes import ClassSubset, select_classes
from pipeline.data.generated import classes_of_generated, open_generated
from pipeline.data.mixing import MixedLoader, check_batch_size
from pipeline.data.order import GeneratedOrder, Order
from pipeline.data.pictures import (
    BetonPictures,
    Pictures,
    SourcePictures,
    Split,
    SubsetPictures,
    open_pictures,
)
from pipeline.data.staging import staged
from pipeline.data.workers import worker_count
from pipeline.distributed import World
from pipeline.progress import say

__all__ = [
    "BLOCK",
    "BlockLoader",
    "DatasetInfo",
    "TrainLoader",
    "open_block_loader",
    "open_train_loader",
]


def open_train_loader(
    data: DataConfig, image_size: int, batch_size: int, seed: int, world: World
) -> TrainLoader:
    """The training set of a run, as this rank sees it.

    Args:
        data: where the images are and how they are read.
        image_size: side of the model's images.
        batch_size: images of a step over all ranks, generated ones included.
        seed: fixes order and augmentation.

    Raises:
        ValueError: no such data, images that the model does not take, a batch that cannot be
            divided among the ranks or is larger than the data set, a backend that cannot read it;
            generated images that do not belong to the real ones.
    """
    if data.train is None:
        raise ValueError(
            "key 'data.train' is missing: add it to the file or give --data.train VALUE"
        )
    if data.generated is None:
        return _open_real(data, data.train, image_size, batch_size, seed, world).loader
    ratio = data.generated.parts
    check_batch_size(batch_size, world.size, ratio=ratio)
    groups = batch_size // sum(ratio)
    real = _open_real(data, data.train, image_size, groups * ratio[0], seed, world)
    try:
        return _mixed(data, image_size, groups * ratio[1], seed, world, real)
    except BaseException:
        real.loader.close()
        raise


@dataclass(frozen=True)
class _Real:
    """The loader of the real images, and what the generated ones are compared with."""

    loader: TrainLoader
    whole: Pictures
    chosen: Pictures


def _open_real(
    data: DataConfig, spec: str, image_size: int, batch_size: int, seed: int, world: World
) -> _Real:
    """`batch_size` images of `data.train` in a step."""
    if batch_size % world.size:
        raise ValueError(
            f"training.batch_size {batch_size} cannot be divided among {world.size} processes: "
            f"take {batch_size // world.size * world.size or world.size}"
        )
    with_ffcv = choose_ffcv(data.backend, spec)
    check_reading(data, spec, with_ffcv)
    path = staged(spec, data.stage)
    any_size = data.augmentation.resized_crop is not None
    whole = open_pictures(path, "train", image_size, "train", any_size)
    if isinstance(whole, BetonPictures):
        check_jpegs(whole.is_raw, spec, with_ffcv)
    chosen, subset = _chosen(whole, data.classes)
    info = _info(spec, chosen, image_size, subset)
    order = Order(info.num_samples, batch_size, seed)
    if order.steps_per_epoch == 0:
        raise ValueError(_too_large(data, batch_size, info))
    tail = info.num_samples % batch_size
    if tail:
        say(
            f"{spec}: {tail} of {info.num_samples} images, others in each epoch, are left out of "
            f"an epoch, because steps have {batch_size} images"
        )
    loader = open_reader(data, path, whole, subset, info, order, world, with_ffcv)
    return _Real(loader, whole, chosen)


def _too_large(data: DataConfig, batch_size: int, info: DatasetInfo) -> str:
    """The sentence for `batch_size` real images a step, more than there are."""
    if data.generated is None:
        largest, what = info.num_samples, f"{batch_size} is"
    else:
        real, generated = data.generated.parts
        largest = info.num_samples // real * (real + generated)
        what = f"{batch_size // real * (real + generated)} has {batch_size} real images,"
    return (
        f"training.batch_size {what} larger than the {info.num_samples} images of {info.spec}: "
        f"take {largest} or less"
    )


def _mixed(
    data: DataConfig, image_size: int, batch_size: int, seed: int, world: World, real: _Real
) -> TrainLoader:
    """The loader of both, with `batch_size` generated images in a step."""
    assert data.generated is not None
    found = open_generated(data, image_size)
    subset = classes_of_generated(data, found, real.whole, real.chosen)
    alone = len(found.paths) == 1
    with_ffcv = choose_ffcv(data.backend, found.paths[0]) if alone else False
    check_reading(data, found.spec, with_ffcv)
    if not isinstance(found.pictures, SourcePictures):
        decodes = with_ffcv if alone else choose_ffcv(data.backend, found.paths[0])
        check_jpegs(found.pictures.is_raw, found.spec, decodes)
    kept = found.pictures if subset is None else SubsetPictures(found.pictures, subset)
    info = _info(found.spec, kept, image_size, subset)
    order = GeneratedOrder(info.num_samples, batch_size, seed, real.loader.steps_per_epoch)
    own = data.model_copy(update={"augmentation": data.generated_augmentation})
    loader = open_reader(own, found.paths[0], found.pictures, subset, info, order, world, with_ffcv)
    facts = GeneratedInfo(found.spec, info.num_samples, data.generated.parts, found.sha256)
    return MixedLoader(real.loader, loader, facts)


def open_block_loader(
    spec: str, split: Split, image_size: int, data: DataConfig | None = None
) -> BlockLoader:
    """The exact pixels of a data set, for validation and certification.

    Args:
        spec: a dataset spec.
        split: which part of a source; a .beton file has only one.
        image_size: side of the model's images.
        data: `classes`, `stage` and `workers` are followed; `backend` is checked like that of
            training, the pixels are the same with any. Of the rest nothing is read.

    Raises:
        ValueError: no such data, images that the model does not take, JPEG images in a .beton.
    """
    from pipeline.data.block_loader import PictureBlockLoader

    data = data or DataConfig()
    choose_ffcv(data.backend, spec)
    whole = open_pictures(staged(spec, data.stage), split, image_size, "exact")
    pictures, subset = _chosen(whole, data.classes)
    info = _info(spec, pictures, image_size, subset)
    return PictureBlockLoader(pictures, info, worker_count(data.workers))


def _chosen(whole: Pictures, classes: ClassesConfig | None) -> tuple[Pictures, ClassSubset | None]:
    """The pictures of the classes asked for."""
    if classes is None:
        return whole, None
    subset = select_classes(classes, whole.class_names, whole.labels)
    return SubsetPictures(whole, subset), subset


def _info(spec: str, pictures: Pictures, size: int, subset: ClassSubset | None) -> DatasetInfo:
    return DatasetInfo(
        spec=spec,
        num_samples=len(pictures.labels),
        image_shape=(pictures.channels, size, size),
        num_classes=len(pictures.class_names),
        class_names=pictures.class_names,
        classes=None if subset is None else subset.classes,
        exact=pictures.exact,
    )
