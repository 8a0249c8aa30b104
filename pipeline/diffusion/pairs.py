"""A picture of drawn samples beside their nearest training images, nearest pairs first."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pipeline.training.picture_grid import COLUMNS, ROWS, picture_grid

PAIRS = COLUMNS * ROWS // 2


def write_pairs(drawn: Tensor, training: Tensor, path: Path) -> None:
    """Write a PNG: columns are drawn, training, drawn, training, ...

    Args:
        drawn, training: [n, C, H, W] uint8, n at most `PAIRS`.
    """
    both = torch.stack([drawn, training], dim=1).flatten(0, 1)
    grid = picture_grid(both / 255)
    beside = path.with_name(f".{path.name}.tmp")
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(beside, "PNG")
    beside.replace(path)
