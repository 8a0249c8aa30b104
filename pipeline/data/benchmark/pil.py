"""What most people train with: PIL and torchvision's transforms, for torch's DataLoader.

Notable: the operations and their order are torchvision's, written with PIL alone. It is measured
against (`turns.py`) and never trains anything.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.data.pixels import shorter_side

Crop = Literal["resized", "random"]
"""`resized`: RandomResizedCrop. `random`: Resize of the shorter side, RandomCrop."""

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_SCALE, _RATIO, _TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # torchvision's defaults


class PilPictures(Dataset[Tensor]):
    """Every picture below a folder, decoded, cropped and flipped: [3, size, size] uint8.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, folder: Path, size: int, crop: Crop) -> None:
        self._files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not self._files:
            raise ValueError(f"--folder {folder} holds no .jpg, .jpeg or .png files")
        self._size, self._crop = size, crop

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self._files[index]) as file:
            picture = file.convert("RGB")
        crop = resized_crop if self._crop == "resized" else random_crop
        picture = crop(picture, self._size)
        if random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(picture).transpose(2, 0, 1).copy())


def resized_crop(picture: Image.Image, size: int) -> Image.Image:
    """RandomResizedCrop with its defaults: a box of random area and aspect ratio, resized."""
    width, height = picture.size
    box = _middle(width, height)
    for _ in range(_TRIES):
        area = width * height * random.uniform(*_SCALE)
        ratio = math.exp(random.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            box = (left, top, left + w, top + h)
            break
    return picture.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def random_crop(picture: Image.Image, size: int) -> Image.Image:
    """Resize(256) and RandomCrop(224), scaled to `size`."""
    shorter = shorter_side(size)
    width, height = picture.size
    if width <= height:
        width, height = shorter, int(shorter * height / width)
    else:
        width, height = int(shorter * width / height), shorter
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = random.randint(0, width - size), random.randint(0, height - size)
    return picture.crop((left, top, left + size, top + size))


def _middle(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest box in the middle within the aspect ratios."""
    w, h = width, height
    if width < _RATIO[0] * height:
        h = round(width / _RATIO[0])
    elif width > _RATIO[1] * height:
        w = round(height * _RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
