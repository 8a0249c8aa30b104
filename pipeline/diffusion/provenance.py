"""What the data card says of drawn samples beyond counts: where they come from, what they repeat.

Notable: "no test data leaked" is nothing to be believed. The card names the generator by the hash
of its weights, its training data by the hash of every pixel and label, and says how near the
samples come to that data, beside how near held-out images come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import distributed
from pipeline.config import RunConfig
from pipeline.data.base import BlockLoader
from pipeline.data.loader import open_block_loader
from pipeline.data.order import share
from pipeline.data.spread import spread
from pipeline.diffusion.neighbours import Nearest, digest, nearest_training_images
from pipeline.diffusion.pairs import PAIRS, write_pairs
from pipeline.diffusion.source import DrawnSource
from pipeline.diffusion.train import open_training_images
from pipeline.diffusion.training_data import TrainingData
from pipeline.distributed import World, gather_objects, together


class RealImages:
    """What samples are compared with, open: the training images, and held-out ones if there are.

    Made before anything is drawn, so that what is missing is not missed hours later.

    Args:
        config: of the generator's run, for its data.
        trained_on: what the run noted of it.

    Raises:
        ValueError: one of them is not there.
    """

    def __init__(self, config: RunConfig, trained_on: TrainingData) -> None:
        self._trained_on = trained_on
        self.held_out: BlockLoader | None = None
        try:
            if config.data.val is not None:
                size = config.model.image_size
                self.held_out = open_block_loader(config.data.val, "val", size, config.data)
            self.training: BlockLoader = open_training_images(config)
        except ValueError as error:
            if self.held_out is not None:
                self.held_out.close()
            error.add_note("sampling.nearest 0 leaves the comparison with real images out")
            raise

    def check(self, leave_if_asked: Callable[[], None]) -> None:
        """Make sure that the data has not changed since. Rank 0 reads it, once. A collective.

        Raises:
            ValueError: it has.
        """

        def compare() -> None:
            if self.training.dataset_sha256() != self._trained_on.dataset_sha256:
                raise ValueError(
                    f"data.train {self.training.info.spec} is not what the generator was trained "
                    "on (another content hash): restore it, or leave the comparison out by "
                    "sampling.nearest 0"
                )

        distributed.together_while(compare, leave_if_asked)

    def close(self) -> None:
        """End all threads."""
        self.training.close()
        if self.held_out is not None:
            self.held_out.close()


def similarity(
    source: DrawnSource,
    real: RealImages,
    compared: int,
    device: torch.device,
    world: World,
    picture: Path,
    leave_if_asked: Callable[[], None],
) -> dict[str, Any]:
    """How near the samples come to the training images. A collective.

    Args:
        source: the samples; on every rank.
        compared: samples, at most, whose nearest training image is looked for.
        picture: a PNG of the nearest pairs; rank 0 writes it.
        leave_if_asked: called between blocks; leaves by raising what is no `Exception`.

    Raises:
        ValueError: the training data is not what the generator was trained on.
    """
    real.check(leave_if_asked)
    chosen = spread(compared, len(source))
    drawn = _divided(chosen, lambda mine: _stacked(source, mine), world)
    queries = drawn
    if real.held_out is not None:  # the same distances of theirs: what is to be expected
        those = spread(compared, real.held_out.info.num_samples)
        queries = torch.cat([drawn, _divided(those, real.held_out.pictures, world)])
    found, digests = nearest_training_images(queries, real.training, device, leave_if_asked)
    nearest, held_out = found[: len(chosen)], found[len(chosen) :]
    with together():
        if world.is_main:
            order = nearest.distances.argsort(stable=True)[:PAIRS]
            partners = real.training.pictures(nearest.indices[order].tolist())
            write_pairs(drawn[order], partners, picture)
    facts: dict[str, Any] = {
        "compared": len(chosen),
        "nearest_training_image_l2": _spread_of(nearest),
        "held_out_images_l2": None if real.held_out is None else _spread_of(held_out),
        "pairs": picture.name,
    }
    copies = 0
    with together():
        for index in range(*share(len(source), world.rank, world.size)):
            mark = digest(_picture(source, index))
            copies += mark == digests[np.searchsorted(digests, mark) % len(digests)]
            leave_if_asked()
    facts["copies_of_training_images"] = int(sum(gather_objects(copies)))
    return facts


def _divided(
    indices: Sequence[int], read: Callable[[Sequence[int]], Tensor], world: World
) -> Tensor:
    """The images with these indices on every rank, each read by one. [n, C, H, W] uint8."""
    own: Tensor | None = None
    with together():
        mine = indices[world.rank :: world.size]
        own = read(mine) if mine else None
    parts = gather_objects(own)
    images = torch.empty((len(indices), *parts[0].shape[1:]), dtype=torch.uint8)
    for rank, part in enumerate(parts):
        if part is not None:
            images[rank :: world.size] = part
    return images


def _stacked(source: DrawnSource, indices: Sequence[int]) -> Tensor:
    """[n, C, H, W] uint8."""
    return torch.stack([_picture(source, index) for index in indices])


def _picture(source: DrawnSource, index: int) -> Tensor:
    """[C, H, W] uint8."""
    return torch.from_numpy(np.array(source.image(index))).permute(2, 0, 1).contiguous()


def _spread_of(nearest: Nearest) -> dict[str, float]:
    """Of the distances, in the space of the stored image, values v/255."""
    values = nearest.distances.numpy()
    return {
        "least": float(values.min()),
        "one_percent": float(np.quantile(values, 0.01)),
        "median": float(np.median(values)),
        "most": float(values.max()),
    }
