"""The values that pass between rooms: Epsilon, Batch, Prediction.

Notable:
- `Epsilon` keeps the radius as it was written ("36/255") and as an exact fraction. float64 of
  36/255, 72/255 and 108/255 all lie *below* the rational: a certificate never compares with it.
- `Batch.images` is uint8 as loaded (a quarter of the traffic to the device); `Batch.to` makes it
  float32 in [0, 1]. Nothing outside the model ever subtracts a mean or divides by a deviation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

WRITTEN = re.compile(
    r"[0-9]{1,20}/[0-9]{1,20}|([0-9]{1,20}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,2})?"
)
"""How an ε may be written: what the independent check reads too."""


@dataclass(frozen=True)
class Epsilon:
    """An l2 radius in the space of the stored image, values v/255 in [0, 1]."""

    text: str
    """As written by the user: "36/255", "0.25", "1.0". The key of `vra` in a certificate."""
    exact: Fraction

    @classmethod
    def parse(cls, value: str | float | int | Epsilon) -> Epsilon:
        """Read "36/255", "0.25", 1, 0.25.

        Raises:
            ValueError: not a number, or not positive and finite.
        """
        if isinstance(value, Epsilon):
            return value
        text = str(value).strip()
        try:
            exact = Fraction(text) if WRITTEN.fullmatch(text) else None
        except ZeroDivisionError:
            exact = None
        if exact is None:
            raise ValueError(
                f'epsilon {text!r} is not a number above 0: write a fraction such as "36/255" or a '
                "decimal such as 0.25"
            )
        if exact == 0:
            raise ValueError(f"epsilon {text!r} must be greater than 0")
        return cls(text, exact)

    def __float__(self) -> float:
        """Nearest float64, for training. Certification compares with `exact`."""
        return float(self.exact)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Batch:
    """Images and what is known of them; B may be one rank's share of a global batch."""

    images: Tensor
    """[B, C, H, W], uint8 as loaded, float32 in [0, 1] after `to`."""
    labels: Tensor
    """[B] int64."""
    sample_ids: Tensor
    """[B] int64, the index in the data set: the identity that order and augmentation draw on.
    Those of generated images go on behind the last real one."""
    is_generated: Tensor
    """[B] bool, True where a generator made the image."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Batch:
        """This batch on `device`, images as float32 in [0, 1] (v/255 rounded to float32)."""
        images = self.images.to(device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = images.to(torch.float32) / 255
        return Batch(
            images,
            self.labels.to(device, non_blocking=True),
            self.sample_ids.to(device, non_blocking=True),
            self.is_generated.to(device, non_blocking=True),
        )

    def split(self, parts: int) -> list[Batch]:
        """Cut into `parts` equal micro-batches, in order. B must be divisible by `parts`."""
        assert len(self) % parts == 0, f"batch of {len(self)} in {parts} parts"
        size = len(self) // parts
        return [
            Batch(*(field[start : start + size] for field in self.fields()))
            for start in range(0, len(self), size)
        ]

    def fields(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, labels, sample ids, is_generated."""
        return self.images, self.labels, self.sample_ids, self.is_generated


@dataclass(frozen=True)
class Prediction:
    """What one forward of a model says: the logits, and how steep the network is.

    The Lipschitz numbers come out of the forward, not of a later call on the weights: under ZeRO-3
    the weights are empty outside the wrapped forward.
    """

    logits: Tensor
    """[B, K]."""
    margin_lipschitz: Tensor
    """[K, K] float32, entry (j, i) the training estimate of K_ji, the Lipschitz constant of
    f_j − f_i (LiResNet equation 1). Symmetric, zero diagonal. An estimate, not a bound."""
    layer_lipschitz: Tensor
    """[number of normed layers] float32, the training estimate of each layer, in network order."""
    curvature: Tensor | None = None
    """[K, K] float32, entry (j, i) an estimate of the largest |eigenvalue| of the Hessian of
    f_j − f_i (CRC, Theorem 4), from models that are asked for it."""
    concavity: Tensor | None = None
    """[K, K] float32 without gradient, entry (j, i) an estimate of C: f_j − f_i is nowhere more
    concave than −C/2·‖x‖² (CRC's −m). Beside `curvature`, for few classes."""
