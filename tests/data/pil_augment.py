"""torchvision's augmentations of PIL pictures, written out from its documented steps.

An independent reference for the kernels: it draws nothing itself, and everything that touches a
pixel is PIL's. (torchvision cannot be installed beside every torch that is supported here.)
"""

import math

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

OPERATIONS = [
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
]
SIGNED = OPERATIONS[1:10]


def to_pil(image: np.ndarray) -> Image.Image:
    """A picture [h, w, 1 or 3] as mode L or RGB."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def to_array(picture: Image.Image) -> np.ndarray:
    """A picture of mode L or RGB as [h, w, 1 or 3]."""
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def magnitude(name: str, bin_: int, bins: int, size: tuple[int, int]) -> float:
    """`RandAugment._augmentation_space(bins, size)[name][0][bin_].item()`; `size` [h, w]."""
    if name in ("ShearX", "ShearY"):
        levels = torch.linspace(0.0, 0.3, bins)
    elif name == "TranslateX":
        levels = torch.linspace(0.0, 150.0 / 331.0 * size[1], bins)
    elif name == "TranslateY":
        levels = torch.linspace(0.0, 150.0 / 331.0 * size[0], bins)
    elif name == "Rotate":
        levels = torch.linspace(0.0, 30.0, bins)
    elif name in ("Brightness", "Color", "Contrast", "Sharpness"):
        levels = torch.linspace(0.0, 0.9, bins)
    elif name == "Posterize":
        levels = 8 - (torch.arange(bins) / ((bins - 1) / 4)).round().int()
    elif name == "Solarize":
        levels = torch.linspace(255.0, 0.0, bins)
    else:
        return 0.0
    return float(levels[bin_].item())


def affine(
    picture: Image.Image,
    translate: tuple[int, int] = (0, 0),
    shear: tuple[float, float] = (0.0, 0.0),
    center: tuple[float, float] | None = None,
) -> Image.Image:
    """`F.affine(picture, angle=0, translate, scale=1, shear, NEAREST, fill=None, center)`."""
    width, height = picture.size
    cx, cy = center or (width * 0.5, height * 0.5)
    tx, ty = translate
    rotation, sx, sy = 0.0, math.radians(shear[0]), math.radians(shear[1])
    # Rotation, then shears, without scaling; its inverse, since PIL asks where a pixel comes from.
    a = math.cos(rotation - sy) / math.cos(sy)
    b = -math.cos(rotation - sy) * math.tan(sx) / math.cos(sy) - math.sin(rotation)
    c = math.sin(rotation - sy) / math.cos(sy)
    d = -math.sin(rotation - sy) * math.tan(sx) / math.cos(sy) + math.cos(rotation)
    inverse = [d, -b, 0.0, -c, a, 0.0]
    inverse[2] += inverse[0] * (-cx - tx) + inverse[1] * (-cy - ty) + cx
    inverse[5] += inverse[3] * (-cx - tx) + inverse[4] * (-cy - ty) + cy
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        inverse,
        Image.Resampling.NEAREST,
        fillcolor=0 if picture.mode == "L" else (0, 0, 0),
    )


def operate(picture: Image.Image, name: str, amount: float) -> Image.Image:
    """`torchvision.transforms.autoaugment._apply_op(picture, name, amount, NEAREST, fill=None)`."""
    slope = math.degrees(math.atan(amount))
    match name:
        case "Identity":
            return picture
        case "ShearX":
            return affine(picture, shear=(slope, 0.0), center=(0, 0))
        case "ShearY":
            return affine(picture, shear=(0.0, slope), center=(0, 0))
        case "TranslateX":
            return affine(picture, translate=(int(amount), 0))
        case "TranslateY":
            return affine(picture, translate=(0, int(amount)))
        case "Rotate":
            return picture.rotate(amount, Image.Resampling.NEAREST)
        case "Brightness":
            return ImageEnhance.Brightness(picture).enhance(1.0 + amount)
        case "Color":
            return ImageEnhance.Color(picture).enhance(1.0 + amount)
        case "Contrast":
            return ImageEnhance.Contrast(picture).enhance(1.0 + amount)
        case "Sharpness":
            return ImageEnhance.Sharpness(picture).enhance(1.0 + amount)
        case "Posterize":
            return ImageOps.posterize(picture, int(amount))
        case "Solarize":
            return ImageOps.solarize(picture, amount)
        case "AutoContrast":
            return ImageOps.autocontrast(picture)
        case "Equalize":
            return ImageOps.equalize(picture)
    raise KeyError(name)


def box(
    height: int,
    width: int,
    draws: list[float],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """`RandomResizedCrop.get_params` as (y, x, h, w), its draws in [0, 1) given, four a try.

    At least one pixel: with uncommon ratios torchvision's can be empty, which it cannot resize.
    """
    for area, aspect, y, x in np.reshape(draws, (10, 4)).tolist():
        target = height * width * (scale[0] + (scale[1] - scale[0]) * area)
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + (high - low) * aspect)
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w, h = max(1, round(height * ratio[1])), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def resize(picture: Image.Image, height: int, width: int) -> Image.Image:
    """`picture.resize((width, height), BILINEAR)` of Pillow 13, by one axis at a time.

    The order of the two passes is that of Pillow 13 whichever Pillow is there; one pass alone is
    the same in all.
    """
    down = (picture.width, height)
    across = (width, picture.height)
    down_first = picture.height > height and picture.height - height > 2 * (picture.width - width)
    for size in (down if down_first else across, (width, height)):
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return picture
