"""A part of a data set that stands for all of it: images spread evenly over their order.

Notable: validation sets are often sorted by class (every folder of classes is), so the first
thousand of ImageNet's 50,000 images show twenty classes. Every fiftieth shows all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.data.base import BLOCK, BlockLoader


def spread(count: int, total: int) -> list[int]:
    """`count` of the indices below `total`, ascending, evenly spaced; all of them where fewer."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def images_at(loader: BlockLoader, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Some images of a set; one block at a time is in memory beside them.

    Args:
        loader: the set.
        indices: ascending.

    Returns:
        uint8 [n, C, H, W] and labels [n].
    """
    inside: dict[int, list[int]] = {}
    for index in indices:
        inside.setdefault(index // BLOCK, []).append(index % BLOCK)
    parts = [
        (block.images[rows], block.labels[rows])
        for block, rows in zip(loader.blocks(list(inside)), inside.values(), strict=True)
    ]
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])
