"""From the bytes of a picture file to [H, W, 3] uint8, or a refusal that names it.

Notable:
- The pixels are PIL's `convert("RGB")`, as torchvision's ImageFolder has it: EXIF rotation is not
  applied, transparency is dropped (the colour underneath stays), and of an animation the first
  frame is taken. The name's ending does not matter, only the content.
- Of 16 bits a channel the high byte is kept, v >> 8. PIL does so for colour; a grey PNG, which it
  would clip at 255, is treated likewise. Grey of more than 8 bits in other formats, 32 bits and
  floats have no agreed white, and are refused.
- A cut file is refused, whatever another library in this process told PIL.
- A JPEG whose data are damaged but complete in form is decoded as libjpeg does it, without notice.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile

from pipeline.data.sources.base import Pixels, UnreadablePicture

SMALL = 64
"""Longest side of pictures that are data of one size rather than photographs."""
LOOKED_AT = 64
"""Pictures whose size decides that."""

# Of odd EXIF data, dropped transparency and the like; among a million pictures it is noise.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_rgb(data: bytes, name: str, side: int | None = None) -> Pixels:
    """Decode a picture file to [H, W, 3]; grey, palette and CMYK pictures become RGB.

    Args:
        data: the file.
        name: for messages.
        side: the height and width that it must have (`small_side`).

    Raises:
        UnreadablePicture: it is damaged, no picture, of more bits than can be told, or not of that
            size.
    """
    if not data:
        raise UnreadablePicture(name, "it is empty")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = _rgb(picture)
    except MemoryError:
        raise
    except Image.UnidentifiedImageError:
        raise UnreadablePicture(name, f"no picture: it begins with {data[:16]!r}") from None
    except Exception as error:  # a damaged header makes PIL's readers raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadablePicture(name, reason) from None
    if side is not None and pixels.shape[:2] != (side, side):
        height, width, _ = pixels.shape
        raise UnreadablePicture(
            name, f"it has {height}x{width} pixels, the others {side}x{side}, and is not resized"
        )
    return pixels


def _rgb(picture: Image.Image) -> Pixels:
    if picture.mode.startswith("I;16") and picture.format == "PNG":
        high = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2)
    if picture.mode.startswith(("I", "F")):
        raise ValueError(f"mode {picture.mode}, more than 8 bits a channel")
    return np.asarray(picture.convert("RGB"))


def small_side(data: Callable[[int], bytes], count: int) -> int | None:
    """The side of pictures that are all square, of one size and at most 64 px; None otherwise.

    Such sets (CIFAR, Tiny-ImageNet) stay untouched; all others are photographs. The headers of a
    few pictures decide, and `decode_rgb` holds the rest to it.

    Args:
        data: gives picture file `index`.
        count: how many there are.
    """
    sizes: set[tuple[int, int]] = set()
    for index in sorted({i * count // LOOKED_AT for i in range(LOOKED_AT)}):
        try:
            with Image.open(io.BytesIO(data(index))) as picture:
                sizes.add(picture.size)
        except Exception:  # as in `decode_rgb`, which names it when it is its turn
            continue
        if len(sizes) > 1 or picture.width != picture.height or picture.width > SMALL:
            return None
    return sizes.pop()[0] if sizes else None
