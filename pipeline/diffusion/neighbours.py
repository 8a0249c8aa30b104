"""The nearest training image of drawn samples, and exact copies: does the generator recite?

Notable:
- Distances are exact: pixels are integers, and sums of their products stay below 2^53.
- The training images are read once, in blocks, divided over the ranks; memory does not grow with
  their number, but for an 8-byte digest each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.data.base import BlockLoader
from pipeline.distributed import gather_objects, my_share
from pipeline.progress import ProgressBar


@dataclass(frozen=True)
class Nearest:
    """For each of n images."""

    distances: Tensor
    """[n] float64, l2 in the space of the stored image, values v/255."""
    indices: Tensor
    """[n] int64, of the nearest training image."""

    def __getitem__(self, some: slice) -> Nearest:
        """Of some of the images."""
        return Nearest(self.distances[some], self.indices[some])


def nearest_training_images(
    images: Tensor,
    training: BlockLoader,
    device: torch.device,
    leave_if_asked: Callable[[], None] = lambda: None,
) -> tuple[Nearest, npt.NDArray[np.uint64]]:
    """Compare images with all training images. A collective.

    Args:
        images: [n, C, H, W] uint8; equal on every rank.
        training: exact pixels.
        device: where the products are made.
        leave_if_asked: called between blocks; leaves by raising what is no `Exception`.

    Returns:
        The nearest of each, and the digests of all training images, ascending.
    """
    queries = images.flatten(1).to(device).double()
    squares = queries.square().sum(1)
    best = torch.full_like(squares, torch.inf)
    where = torch.full((len(queries),), -1, dtype=torch.int64, device=device)
    digests: list[np.uint64] = []
    mine = my_share(training.num_blocks)
    with ProgressBar("nearest training images", len(mine), unit="block") as bar:
        for block in training.blocks(mine):
            digests += [digest(picture) for picture in block.images]
            others = block.images.flatten(1).to(device).double()
            found = squares[:, None] + others.square().sum(1) - 2 * (queries @ others.T)
            least, place = found.min(1)
            nearer = least < best
            best = torch.where(nearer, least, best)
            where = torch.where(nearer, block.sample_ids.to(device)[place], where)
            bar.advance()
            leave_if_asked()
    everywhere = gather_objects((best.cpu(), where.cpu(), np.array(digests, np.uint64)))
    bests = torch.stack([best for best, _, _ in everywhere])
    wheres = torch.stack([where for _, where, _ in everywhere])
    wheres = wheres.masked_fill(bests > bests.amin(0), torch.iinfo(torch.int64).max)
    nearest = Nearest(bests.amin(0).sqrt() / 255, wheres.amin(0))
    return nearest, np.unique(np.concatenate([digests for _, _, digests in everywhere]))


def digest(picture: Tensor) -> np.uint64:
    """Of one image [C, H, W] uint8."""
    pixels = np.ascontiguousarray(picture.numpy()).data
    found: np.uint64 = np.frombuffer(hashlib.blake2b(pixels, digest_size=8).digest(), "<u8")[0]
    return found
