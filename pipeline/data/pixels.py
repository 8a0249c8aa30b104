"""How photographs are resized to be stored: exactly as certified, or with room for crops.

Notable:
- `exact` is what certificates speak of: torchvision's Resize(256) and CenterCrop(224) on a PIL
  picture (bilinear with antialias, the same rounding of the long side and of the crop's corner),
  scaled to the image size. A test holds it against PIL's own steps.
- EXIF rotation is not applied, as in every published ImageNet number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

LARGEST_RESIZED = 2**24
"""Pixels of a resized picture; of a longer one (1×4000 becomes 256×1,024,000) only the middle is
computed, by a kernel that equals PIL to the bit."""

LONGEST_ASPECT = 4
"""Longer over shorter side of what is stored for training, at the most."""


def shorter_side(size: int) -> int:
    """Length that the shorter side is resized to: 256 for images of 224."""
    return round(size * 256 / 224)


def train_photo(photo: Pixels, size: int) -> Pixels:
    """Resize the shorter side, aspect kept, to leave room for random crops.

    Of a very long picture the middle is taken first, so that 1×4000 pixels do not become a million.

    Args:
        photo: [h, w, 3] uint8.
        size: side of the images that will be cropped.

    Returns:
        [h', w', 3] uint8 with min(h', w') = `shorter_side(size)`, max(h', w') at most 4 times that.
    """
    height, width, _ = photo.shape
    longest = LONGEST_ASPECT * min(height, width)
    rows, columns = min(height, longest), min(width, longest)
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = photo[top : top + rows, left : left + columns]
    return _to_size(middle, *_resized_shape(middle, shorter_side(size)))


def limited_photo(photo: Pixels, longest: int) -> Pixels:
    """Shrink a picture so that its longer side is `longest`; a smaller one is left as it is.

    Args:
        photo: [h, w, 3] uint8.
        longest: pixels.

    Returns:
        [h', w', 3] uint8, at least one pixel each way.
    """
    height, width, _ = photo.shape
    if max(height, width) <= longest:
        return photo
    scale = longest / max(height, width)
    return _to_size(photo, max(1, round(height * scale)), max(1, round(width * scale)))


def exact_photo(photo: Pixels, size: int) -> Pixels:
    """Resize the shorter side and crop the middle.

    Args:
        photo: [h, w, 3] uint8.
        size: side of the result.

    Returns:
        [size, size, 3] uint8.
    """
    height, width = _resized_shape(photo, shorter_side(size))
    # torchvision rounds half to even here, as Python does.
    top, left = round((height - size) / 2), round((width - size) / 2)
    if height * width > LARGEST_RESIZED:
        # Here, since numba takes a second to load.
        from pipeline.data.kernels import resize_window

        window = np.empty((size, size, 3), np.uint8)
        resize_window(np.ascontiguousarray(photo), height, width, top, left, window)
        return window
    resized = _to_size(photo, height, width)
    return np.ascontiguousarray(resized[top : top + size, left : left + size])


def _resized_shape(photo: Pixels, shorter: int) -> tuple[int, int]:
    """Height and width with the shorter side resized, as torchvision rounds them."""
    height, width, _ = photo.shape
    if min(height, width) == shorter:
        return height, width
    if width <= height:
        return int(shorter * height / width), shorter
    return shorter, int(shorter * width / height)


def _to_size(photo: Pixels, height: int, width: int) -> Pixels:
    if photo.shape[:2] == (height, width):
        return photo
    picture = Image.fromarray(np.ascontiguousarray(photo))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
