"""Training images as one picture, for a person to see what augmentation made of them.

Notable: small images are enlarged pixel by pixel, so that what is shown is what is trained on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS, ROWS = 8, 4
GAP = 2
SMALLEST_TILE = 64


def picture_grid(images: Tensor) -> Tensor:
    """The first 32 images side by side.

    Args:
        images: [B, C, H, W] in [0, 1].

    Returns:
        [3, height, width] uint8 on the CPU, with dark gaps between the images.
    """
    tiles = images[: COLUMNS * ROWS].detach().float().cpu()
    factor = max(1, -(-SMALLEST_TILE // tiles.shape[-1]))
    tiles = tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    tiles = F.pad(tiles.expand(-1, 3, -1, -1), [0, GAP, 0, GAP])
    missing = -len(tiles) % COLUMNS
    tiles = torch.cat([tiles, tiles.new_zeros(missing, *tiles.shape[1:])])
    _, channels, height, width = tiles.shape
    grid = tiles.view(-1, COLUMNS, channels, height, width).permute(2, 0, 3, 1, 4)
    grid = grid.reshape(channels, -1, COLUMNS * width)
    return (grid * 255).round().to(torch.uint8)
