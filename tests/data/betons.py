"""Small .beton files for the tests, written with FFCV's own writer."""

from pathlib import Path

import numpy as np
import pytest


def pictures(count: int, height: int, width: int, channels: int, seed: int = 0) -> list[np.ndarray]:
    """Random uint8 pictures [height, width, channels]."""
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8))


def smooth_pictures(sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """RGB gradients of the sizes (h, w): what JPEG can keep."""
    found = []
    for i, (height, width) in enumerate(sizes):
        y, x = np.mgrid[0:height, 0:width]
        found.append(np.stack([y + i, x, (x + y) // 2], axis=-1).astype(np.uint8))
    return found


def write(path: Path, images: list[np.ndarray], labels: list[int], mode: str = "raw") -> Path:
    """RGB images as FFCV's RGB field (`mode` raw, jpg or proportion), grey ones as an array."""
    pytest.importorskip("ffcv")
    from ffcv.fields import IntField, NDArrayField, RGBImageField
    from ffcv.writer import DatasetWriter

    from pipeline.data.workers import torch_threads_kept

    if images[0].shape[2] == 3:
        field = RGBImageField(write_mode=mode)
    else:
        field = NDArrayField(np.dtype("u1"), images[0].shape)
    with torch_threads_kept():
        writer = DatasetWriter(str(path), {"image": field, "label": IntField()}, num_workers=1)
        writer.from_indexed_dataset(list(zip(images, labels, strict=True)))
    return path
