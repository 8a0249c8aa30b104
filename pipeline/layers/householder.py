"""The Householder activation (Singla et al., ICLR 2022), exported as a Convex Potential Layer.

    z where vᵀz ≤ 0, else (I − 2vvᵀ)z,   v = (cos θ, sin θ), z = (x_c, x_{c + C/2})

Notable: this is z − 2v·relu(vᵀz), a convex potential whose W has the row v (CPL, Remark 2). With
all pairs together W is a kernel of one pixel, [C/2, C], and its norm is proved: rounded to float32
the rows v are not quite unit vectors, and nothing is taken for granted.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.convex_potential import freeze
from pipeline.layers.exported import ExportedLayer
from pipeline.lipschitz.power_iteration import NormRequest


class Householder(LipschitzLayer):
    """Pairs of channel halves, each with its angle: [B, C, ...] -> the same, C even.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # π/4·3: with v = (−1, 1)/√2 it is MinMax, the larger first.
        self.angle = nn.Parameter(torch.full((channels // 2,), 3 * torch.pi / 4))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        first, second = x.chunk(2, dim=1)
        shape = (-1, *[1] * (x.ndim - 2))
        cosine, sine = self.angle.cos().view(shape), self.angle.sin().view(shape)
        reach = 2 * torch.relu(cosine * first + sine * second)
        return torch.cat([first - cosine * reach, second - sine * reach], dim=1)

    def norm_request(self) -> NormRequest | None:
        """None: a reflection or nothing."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`.

        Raises:
            ValueError: another number of channels.
        """
        pairs = len(self.angle)
        if input_shape[0] != 2 * pairs:
            raise ValueError(
                f"layer {name!r} has angles for {2 * pairs} channels and is given {input_shape[0]}"
            )
        angle = np.asarray(self.angle.detach().cpu().double().numpy())
        weight = np.concatenate([np.diag(np.cos(angle)), np.diag(np.sin(angle))], axis=1)
        if len(input_shape) == 3:
            weight = weight[:, :, None, None]
        return [freeze(name, input_shape, weight, np.zeros(pairs), step=2.0)]
