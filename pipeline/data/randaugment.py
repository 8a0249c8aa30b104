"""RandAugment's operations and how strong each is: torchvision's, as numbers that kernels take.

Notable:
- Everything that needs a sine, a tangent or a decision about rounding is done here, once, in the
  steps of torchvision and of PIL; `kernels.py` is left with integers and tables.
- A magnitude in torchvision is an element of a float32 `torch.linspace`. It is computed here with
  one rounding a step, which is what torch does on processors with a fused multiply-add, so that
  pixels do not depend on the processor.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.config import RandAugmentConfig

OPERATIONS = (
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
)
"""In the order of torchvision, whose numbers the kernels use."""

_LONGEST_SHIFT = 150 / 331  # of the image's side


def randaugment_table(
    config: RandAugmentConfig, size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """What each operation does at the configured magnitude to images of side `size`.

    Returns:
        matrices: [14, 2, 6], for a positive and a negative sign: output to input positions in 16.16
            fixed point, for the pixel centres, as (xx, xy, x, yx, yy, y); identity where the
            operation moves nothing.
        amounts: [14, 2]: the factor of a blend, the bits kept by Posterize as a mask, Solarize's
            threshold; elsewhere 0.
    """
    matrices = np.tile(_fixed_point((1, 0, 0, 0, 1, 0)), (len(OPERATIONS), 2, 1))
    amounts = np.zeros((len(OPERATIONS), 2))
    shear, turn = _level(config, 0, 0.3), _level(config, 0, 30)
    shift = int(_level(config, 0, _LONGEST_SHIFT * size))
    for column, sign in enumerate((1, -1)):
        for name, matrix in (
            ("ShearX", _sheared(sign * shear, 0)),
            ("ShearY", _sheared(0, sign * shear)),
            ("TranslateX", (1, 0, -sign * shift, 0, 1, 0)),
            ("TranslateY", (1, 0, 0, 0, 1, -sign * shift)),
            ("Rotate", _rotated(sign * turn, size)),
        ):
            matrices[OPERATIONS.index(name), column] = _fixed_point(matrix)
        for name in ("Brightness", "Color", "Contrast", "Sharpness"):
            amounts[OPERATIONS.index(name), column] = 1 + sign * _level(config, 0, 0.9)
    lost = round(float(np.float32(config.magnitude) / np.float32((config.bins - 1) / 4)))
    amounts[OPERATIONS.index("Posterize")] = 256 - 2**lost
    amounts[OPERATIONS.index("Solarize")] = _level(config, 255, 0)
    return matrices, amounts


def _level(config: RandAugmentConfig, start: float, end: float) -> float:
    """`torch.linspace(start, end, bins)[magnitude].item()`, which counts from the nearer end."""
    first, last = np.float32(start), np.float32(end)
    step = float((last - first) / np.float32(config.bins - 1))
    if config.magnitude < config.bins // 2:
        return float(np.float32(float(first) + step * config.magnitude))
    return float(np.float32(float(last) - step * (config.bins - 1 - config.magnitude)))


def _sheared(along_x: float, along_y: float) -> tuple[float, ...]:
    """torchvision's inverse matrix of a shear by these slopes about the corner (0, 0)."""
    x, y = (math.radians(math.degrees(math.atan(slope))) for slope in (along_x, along_y))
    a, b = math.cos(-y) / math.cos(y), -math.cos(-y) * math.tan(x) / math.cos(y)
    c, d = math.sin(-y) / math.cos(y), -math.sin(-y) * math.tan(x) / math.cos(y) + 1.0
    return d, -b, 0, -c, a, 0


def _rotated(degrees: float, size: int) -> tuple[float, ...]:
    """The inverse matrix of PIL's `rotate`, counter-clockwise about the middle."""
    angle, middle = -math.radians(degrees % 360), size / 2
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x = cosine * -middle + sine * -middle + middle
    y = -sine * -middle + cosine * -middle + middle
    return cosine, sine, x, -sine, cosine, y


def _fixed_point(matrix: tuple[float, ...]) -> npt.NDArray[np.int64]:
    """PIL's 16.16 form of an affine matrix, moved from corners to centres of pixels."""
    xx, xy, x, yx, yy, y = matrix
    centred = (xx, xy, x + xx * 0.5 + xy * 0.5, yx, yy, y + yx * 0.5 + yy * 0.5)
    return np.array([math.floor(value * 65536 + 0.5) for value in centred], np.int64)
