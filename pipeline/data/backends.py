"""Who reads a training set: FFCV where a .beton file and FFCV are there, else our own threads."""

from __future__ import annotations

from typing import Literal

from pipeline.config import DataConfig
from pipeline.data.base import DatasetInfo, TrainLoader
from pipeline.data.classes import ClassSubset
from pipeline.data.order import Steps
from pipeline.data.pictures import Pictures, SubsetPictures
from pipeline.data.workers import torch_threads_kept, worker_count
from pipeline.distributed import World

Backend = Literal["auto", "ffcv", "memory"]


def choose_ffcv(backend: Backend, spec: str) -> bool:
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


def check_reading(data: DataConfig, spec: str, with_ffcv: bool) -> None:
    """Refuse direct reading where it is not FFCV that reads.

    Raises:
        ValueError: that was asked for.
    """
    if data.reading == "direct" and not with_ffcv:
        raise ValueError(
            f"data.reading is direct, which only FFCV's loader does, and {spec} is not read by "
            "FFCV: take --data.reading cached"
        )


def check_jpegs(is_raw: bool, spec: str, with_ffcv: bool) -> None:
    """Refuse JPEGs without FFCV's decoder.

    Raises:
        ValueError: some are there.
    """
    if not (is_raw or with_ffcv):
        raise ValueError(
            f"{spec} holds JPEG images, which only FFCV reads: install it (make setup as root) and "
            "take --data.backend auto, or give the source itself, such as folder:PATH"
        )


def open_reader(
    data: DataConfig,
    path: str,
    whole: Pictures,
    subset: ClassSubset | None,
    info: DatasetInfo,
    order: Steps,
    world: World,
    with_ffcv: bool,
) -> TrainLoader:
    """The loader that reads a data set in an order.

    Args:
        data: reading, augmentation and workers.
        path: what FFCV opens.
        whole: all its pictures.
        subset: those that are wanted; None for all.
    """
    workers = worker_count(data.workers)
    if with_ffcv:
        from pipeline.data.ffcv_loader import FfcvTrainLoader

        labels = whole.labels if subset is None else subset.labels
        samples = None if subset is None else subset.samples
        return FfcvTrainLoader(path, labels, samples, info, order, world, data, workers)
    from pipeline.data.memory_loader import MemoryTrainLoader

    pictures = whole if subset is None else SubsetPictures(whole, subset)
    return MemoryTrainLoader(pictures, info, order, world, data.augmentation, workers)
