"""Whether images are of a kind that a network takes."""

from __future__ import annotations

from pipeline.data.base import DatasetInfo
from pipeline.layers.network import ExportedNetwork


def check_images(network: ExportedNetwork, info: DatasetInfo) -> None:
    """Refuse images of another shape, and labels beyond the head.

    Raises:
        ValueError: naming the data set.
    """
    if tuple(info.image_shape) != tuple(network.input_shape):
        here, there = (
            "×".join(map(str, shape)) for shape in (info.image_shape, network.input_shape)
        )
        raise ValueError(f"{info.spec} has images of {here}, the model takes {there}")
    classes = network.head.num_classes
    if info.num_classes > classes:
        raise ValueError(
            f"{info.spec} has {info.num_classes} classes, the model's head has {classes}: take the "
            "data set that the model was trained for"
        )


def check_exact_images(network: ExportedNetwork, info: DatasetInfo) -> None:
    """Refuse what cannot be certified with this network.

    Raises:
        ValueError: naming the data set.
    """
    if not info.exact:
        raise ValueError(
            f"{info.spec} does not hold exact pixels, so its images cannot be certified: write it "
            "with tools/write_beton.py --preset exact"
        )
    check_images(network, info)
    if info.num_samples == 0:
        raise ValueError(f"{info.spec} holds no images")
