"""SlopeResidual: x + G·φ(Wx + b), a block of LipLT's residual networks (Fazlyab et al. 2023, (14)).

Theorem 2: its Lipschitz constant is at most ‖I + c·GW‖ + s·‖T^½ W‖, c and s the centre and spread
of φ's slopes and T any diagonal with GᵀG ⪯ T. It is never above the naive 1 + β·‖G‖·‖W‖.

Notable: T is one of SN, AOL and SLL, whichever proves most; `pipeline.lipschitz.residual_liplt`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.activation import IN_TRAINING
from pipeline.layers.base import LipschitzLayer
from pipeline.layers.elementary import ERROR_UNITS, activate
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import require_shape, tensor, to_float32, word
from pipeline.lipschitz.abs_norms import bias_norm_upper, dense_abs_norm_upper
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.exact_map import ExactMap
from pipeline.lipschitz.power_iteration import NormRequest
from pipeline.lipschitz.residual_liplt import ResidualStage, layer_bound
from pipeline.lipschitz.rounding import add_up, mul_up, sqrt_upper, up
from pipeline.lipschitz.slopes import Slopes, slopes_of

SLACK = 1e-6
"""Of the published bound: another program must be able to prove it by another method."""
TINY = 2.0**-900
"""More than underflow can take from a product that is multiplied by G afterwards."""


@dataclass(frozen=True)
class ExportedSlopeResidual(ExportedLayer):
    """The block as certified.

    Raises:
        ValueError: tensors and input shape do not fit each other, or an unknown activation.
    """

    kind: ClassVar[str] = "slope_residual"

    weight: np.ndarray = field(metadata=tensor(ndim=2))
    """W: [h, D] float32."""
    bias: np.ndarray = field(metadata=tensor(ndim=1))
    """B: [h] float32."""
    outer: np.ndarray = field(metadata=tensor(ndim=2))
    """G: [D, h] float32."""
    function: str = field(metadata=word())

    def __post_init__(self) -> None:
        slopes_of(self.function)
        require_shape(f"input of {self.name}", self.input_shape, self.weight.shape[1:])
        require_shape(f"{self.name}.bias", self.bias.shape, self.weight.shape[:1])
        require_shape(f"{self.name}.outer", self.outer.shape, self.weight.shape[::-1])

    @property
    def slopes(self) -> Slopes:
        """Of φ."""
        return slopes_of(self.function)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, D], float64; float32, for comparisons, by torch's own functions."""
        weight, bias, outer = (
            torch.from_numpy(each).to(x) for each in (self.weight, self.bias, self.outer)
        )
        hidden = x @ weight.T + bias
        small = x.element_size() < 8
        hidden = IN_TRAINING[self.function](hidden) if small else activate(self.function, hidden)
        return x + hidden @ outer.T

    def stage(self) -> ResidualStage:
        """The block as LipLT sees it."""
        inner, outer = self.weight.astype(np.float64), self.outer.astype(np.float64)
        return ResidualStage(ExactMap(inner, inner.shape[1:]), ExactMap(outer, outer.shape[1:]))

    def norm_bound(self) -> NormBound:
        """Theorem 2, with the T that it rests on."""
        value, choice = layer_bound(self.stage(), self.slopes)
        value = mul_up(value, up(1 + SLACK))
        if not math.isfinite(value):
            return NormBound(math.inf, "none", {"reason": "the norm of a matrix is not finite"})
        return NormBound(value, "theorem-2", {"T": choice})

    def estimate(self) -> float:
        """The same without rounding, in float64: for `vra_unsound`."""
        inner, outer = self.weight.astype(np.float64), self.outer.astype(np.float64)
        looped = np.eye(len(outer)) + self.slopes.center * outer @ inner
        gram = np.abs(outer.T @ outer).sum(1)
        sizes = (
            np.linalg.norm(outer, 2) * np.linalg.norm(inner, 2),
            np.linalg.norm(np.sqrt(gram)[:, None] * inner, 2),
        )
        return float(np.linalg.norm(looped, 2) + self.slopes.spread * min(sizes))

    def rounding(self) -> Rounding:
        """As of the matrix I + β|G||W| with the bias |G|(β|b| + |φ(0)| + 1) (certificate.md §5).

        The 1 stands for |φ| below 1, where the activation's error is absolute. Fan-in: the sums of
        both products, the activation's units, and a few roundings for the skip.
        """
        inner, outer = dense_abs_norm_upper(self.weight), dense_abs_norm_upper(self.outer)
        back = mul_up(outer, self.slopes.most)
        entries = sqrt_upper(float(len(self.weight)))
        constant = mul_up(outer, entries, 1.0 + self.slopes.at_zero)
        shift = mul_up(back, bias_norm_upper(self.bias, 1))
        through, start = max(1.0, outer), bias_norm_upper(self.bias, 1)
        return Rounding(
            fan_in=sum(self.weight.shape) + ERROR_UNITS + 8,
            abs_norm=add_up(1.0, mul_up(back, inner)),
            bias_norm=add_up(constant, shift, TINY),
            inner_norm=mul_up(through, inner),  # before a small G
            inner_bias=mul_up(through, add_up(start, mul_up(entries, self.slopes.at_zero))),
        )


class SlopeResidual(LipschitzLayer):
    """The block in training.

    Args:
        width: D.
        inner: h.
        activation: of `pipeline.lipschitz.slopes`.
        scale: of G at the start; 1/√(number of blocks) keeps a deep network's size.
    """

    def __init__(self, width: int, inner: int, activation: str, scale: float = 1.0) -> None:
        super().__init__()
        self.slopes, self.function = slopes_of(activation), activation
        self.weight = nn.Parameter(torch.empty(inner, width))
        self.bias = nn.Parameter(torch.zeros(inner))
        self.outer = nn.Parameter(torch.empty(width, inner))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.outer, a=math.sqrt(5))
        with torch.no_grad():
            self.outer.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        hidden = IN_TRAINING[self.function](F.linear(x, self.weight, self.bias))
        return x + F.linear(hidden, self.outer)

    def norm_request(self) -> NormRequest | None:
        """None: its norms are LipLT's, of the whole network (`pipeline.models.slope_resnet`)."""
        return None

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        weight, bias, outer = (to_float32(each) for each in (self.weight, self.bias, self.outer))
        return [ExportedSlopeResidual(name, input_shape, weight, bias, outer, self.function)]
