"""What the data card says of drawn samples beyond counts: where they come from, what they repeat.

Notable: "no test data leaked" is nothing to be believed. The card names the generator by the hash
of its weights, its training data by the hash of every pixel and label, and says how near the
samples come to that data, beside how near held-out images come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config import RunConfig
from pipeline.data.base import BlockLoader
from pipeline.data.loader import open_block_loader
from pipeline.data.order import share
from pipeline.diffusion.neighbours import Nearest, digest, nearest_training_images
from pipeline.diffusion.pairs import PAIRS, write_pairs
from pipeline.diffusion.source import DrawnSource
from pipeline.diffusion.train import open_training_images
from pipeline.diffusion.training_data import TrainingData
from pipeline.distributed import World, gather_objects, together


def similarity(
    source: DrawnSource,
    config: RunConfig,
    trained_on: TrainingData,
    compared: int,
    device: torch.device,
    world: World,
    picture: Path,
) -> dict[str, Any]:
    """How near the samples come to the training images. A collective.

    Args:
        source: the samples; on every rank.
        config: of the generator's run, for its data.
        compared: samples, at most, whose nearest training image is looked for.
        picture: a PNG of the nearest pairs; rank 0 writes it.

    Raises:
        ValueError: the training data is not there, or not what the generator was trained on.
    """
    with together():
        training = _opened(config)
    try:
        with together():
            _check_same(training, trained_on, world)
        chosen = np.linspace(0, len(source) - 1, min(compared, len(source))).round().astype(int)
        drawn = _pictures(source, chosen)
        nearest, digests = nearest_training_images(drawn, training, device)
        held_out = _held_out(config, training, compared, device)
        with together():
            if world.is_main:
                order = nearest.distances.argsort(stable=True)[:PAIRS]
                partners = training.pictures(nearest.indices[order].tolist())
                write_pairs(drawn[order], partners, picture)
    finally:
        training.close()
    facts: dict[str, Any] = {
        "compared": len(chosen),
        "nearest_training_image_l2": _spread(nearest),
        "held_out_images_l2": None if held_out is None else _spread(held_out),
        "pairs": picture.name,
    }
    copies = 0
    with together():
        for index in range(*share(len(source), world.rank, world.size)):
            copies += digest(_picture(source, index)) in digests
    facts["copies_of_training_images"] = sum(gather_objects(copies))
    return facts


def _opened(config: RunConfig) -> BlockLoader:
    try:
        return open_training_images(config)
    except ValueError as error:
        error.add_note("sampling.nearest 0 leaves the comparison with the training data out")
        raise


def _check_same(training: BlockLoader, trained_on: TrainingData, world: World) -> None:
    """The data may have changed since; rank 0 reads it."""
    if world.is_main and training.dataset_sha256() != trained_on.dataset_sha256:
        raise ValueError(
            f"data.train {training.info.spec} is not what the generator was trained on (another "
            "content hash): restore it, or leave the comparison out by sampling.nearest 0"
        )


def _held_out(
    config: RunConfig, training: BlockLoader, compared: int, device: torch.device
) -> Nearest | None:
    """The same distances of validation images, where the run has some: what is to be expected."""
    if config.data.val is None:
        return None
    loader = open_block_loader(config.data.val, "val", config.model.image_size, config.data)
    try:
        count = min(compared, loader.info.num_samples)
        images = loader.pictures(list(range(count)))
        return nearest_training_images(images, training, device)[0]
    finally:
        loader.close()


def _pictures(source: DrawnSource, chosen: npt.NDArray[Any]) -> Tensor:
    """[n, C, H, W] uint8."""
    return torch.stack([_picture(source, int(index)) for index in chosen])


def _picture(source: DrawnSource, index: int) -> Tensor:
    """[C, H, W] uint8."""
    return torch.from_numpy(np.array(source.image(index))).permute(2, 0, 1).contiguous()


def _spread(nearest: Nearest) -> dict[str, float]:
    """Of the distances, in the space of the stored image, values v/255."""
    values = nearest.distances.numpy()
    return {
        "least": float(values.min()),
        "one_percent": float(np.quantile(values, 0.01)),
        "median": float(np.median(values)),
        "most": float(values.max()),
    }
