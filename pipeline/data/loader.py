"""Opens the loaders of a run: by FFCV where a .beton file and FFCV are there, else in memory.

Everything about a data set that can be wrong for a run is found here, before the first batch.
"""

from __future__ import annotations

from typing import Literal

from pipeline.config import ClassesConfig, DataConfig
from pipeline.data.base import BLOCK, BlockLoader, DatasetInfo, TrainLoader
from pipeline.data.classes import ClassSubset, select_classes
from pipeline.data.order import Order
from pipeline.data.pictures import BetonPictures, Pictures, Split, SubsetPictures, open_pictures
from pipeline.data.staging import staged
from pipeline.data.workers import torch_threads_kept, worker_count
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

Backend = Literal["auto", "ffcv", "memory"]


def open_train_loader(
    data: DataConfig, image_size: int, batch_size: int, seed: int, world: World
) -> TrainLoader:
    """The training set of a run, as this rank sees it.

    Args:
        data: where the images are and how they are read.
        image_size: side of the model's images.
        batch_size: images of a step over all ranks.
        seed: fixes order and augmentation.

    Raises:
        ValueError: no such data, images that the model does not take, a batch that cannot be
            divided among the ranks or is larger than the data set, a backend that cannot read it.
    """
    spec = data.train
    if spec is None:
        raise ValueError(
            "key 'data.train' is missing: add it to the file or give --data.train VALUE"
        )
    if batch_size % world.size:
        raise ValueError(
            f"training.batch_size {batch_size} cannot be divided among {world.size} processes: "
            f"take {batch_size // world.size * world.size or world.size}"
        )
    with_ffcv = _with_ffcv(data.backend, spec)
    if data.reading == "direct" and not with_ffcv:
        raise ValueError(
            f"data.reading is direct, which only FFCV's loader does, and {spec} is not read by "
            "FFCV: take --data.reading cached"
        )
    path = staged(spec, data.stage)
    any_size = data.augmentation.resized_crop is not None
    whole = open_pictures(path, "train", image_size, "train", any_size)
    if isinstance(whole, BetonPictures) and not (whole.is_raw or with_ffcv):
        raise ValueError(
            f"{spec} holds JPEG images, which only FFCV reads: install it (make setup as root) and "
            "take --data.backend auto, or give the source itself, such as folder:PATH"
        )
    pictures, subset = _chosen(whole, data.classes)
    info = _info(spec, pictures, image_size, subset)
    order = Order(info.num_samples, batch_size, seed)
    if order.steps_per_epoch == 0:
        raise ValueError(
            f"training.batch_size {batch_size} is larger than the {info.num_samples} images of "
            f"{spec}: take {info.num_samples} or less"
        )
    tail = info.num_samples % batch_size
    if tail:
        say(
            f"{spec}: {tail} of {info.num_samples} images, others in each epoch, are left out of "
            f"an epoch, because steps have {batch_size} images"
        )
    workers = worker_count(data.workers)
    if with_ffcv:
        from pipeline.data.ffcv_loader import FfcvTrainLoader

        samples = None if subset is None else subset.samples
        return FfcvTrainLoader(path, pictures.labels, samples, info, order, world, data, workers)
    from pipeline.data.memory_loader import MemoryTrainLoader

    return MemoryTrainLoader(pictures, info, order, world, data.augmentation, workers)


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
    _with_ffcv(data.backend, spec)
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


def _with_ffcv(backend: Backend, spec: str) -> bool:
    """Whether FFCV reads this data set.

    Raises:
        ValueError: `ffcv` was asked for and cannot.
    """
    is_beton = spec.endswith(".beton")
    if backend == "memory" or (backend == "auto" and not is_beton):
        return False
    if not is_beton:
        raise ValueError(
            f"data.backend ffcv reads .beton files, not {spec}: write one with "
            f"tools/write_beton.py --source {spec}, or take --data.backend auto"
        )
    try:
        with torch_threads_kept():
            import pipeline.data.ffcv_loader  # noqa: F401
    except ImportError as error:
        if backend == "ffcv":
            raise ValueError(
                f"data.backend is ffcv, but FFCV is not installed ({error}): run make setup as "
                "root, or take --data.backend memory"
            ) from None
        return False
    return True
