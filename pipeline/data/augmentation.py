"""From the configuration to the kernels: what both loaders do to a picture, in which order.

Notable: the order is crop, flip, RandAugment, Cutout. LiResNet's Appendix B.1 names them as crop,
RandAugment, flip and adds Cutout; the authors' later code flips first, as torchvision's recipes do.
Signs are drawn evenly, so the two have the same distribution up to the rounding of positions.
Cutout comes last, so that nothing moves, brightens or equalizes its square.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

import pipeline.data.kernels as kernels
from pipeline.config import AugmentationConfig
from pipeline.data.randaugment import randaugment_table

InPlaceKernel = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint64]], None]
"""kernel(images [n, H, W, C], keys [n]): changes the images in place."""


def cropping(augmentation: AugmentationConfig) -> tuple[int, kernels.Box | None]:
    """How images are cut out of pictures: `padding` and `box` of `kernels.cut` and `cut_stored`."""
    chosen = augmentation.resized_crop
    box = None if chosen is None else kernels.Box(chosen.scale, chosen.ratio)
    return augmentation.crop_padding, box


def after_crop(augmentation: AugmentationConfig, size: int) -> tuple[InPlaceKernel, ...]:
    """The kernels that follow the crop, in order, for images of side `size`.

    Raises:
        ValueError: the square of Cutout is larger than the images.
    """
    found: list[InPlaceKernel] = [kernels.flip] if augmentation.flip else []
    if augmentation.randaugment is not None:
        count = augmentation.randaugment.operations
        table = randaugment_table(augmentation.randaugment, size)
        found.append(lambda images, keys: kernels.randaugment(images, keys, count, *table))
    side = augmentation.cutout
    if side > size:
        raise ValueError(
            f"key 'data.augmentation.cutout' has the value {side}, more than the images' {size} "
            "pixels: take about half of that, or 0 for none"
        )
    if side > 0:
        found.append(lambda images, keys: kernels.cutout(images, keys, side))
    return tuple(found)
