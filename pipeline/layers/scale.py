"""s·x: a number that stretches everything, in training and as certified.

Proposition 2 of LipLT (Fazlyab et al. 2023): √ρ·x − (α+β)/√ρ·WᵀTφ(Wx + b) with
WWᵀ ⪯ 2ρ/(α+β)²·T⁻¹ is √ρ-Lipschitz. For ReLU it is √ρ times a convex potential of T^{1/2}W with
the step 1/ρ, and written so here: a 1-Lipschitz layer, then this one with s = √ρ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import number
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.power_iteration import NormRequest


@dataclass(frozen=True)
class ExportedScale(ExportedLayer):
    """s·x as certified; `factor` is the float64 number itself."""

    kind: ClassVar[str] = "scale"

    factor: float = field(metadata=number())

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...], one rounding an entry."""
        return x * self.factor

    def norm_bound(self) -> NormBound:
        """|s|, exactly."""
        if not math.isfinite(self.factor):
            return NormBound(math.inf, "none", {"reason": "the factor is not finite"})
        return NormBound(abs(self.factor), "exact")

    def rounding(self) -> Rounding:
        """One product an entry: W = s·I."""
        return Rounding(fan_in=1, abs_norm=abs(self.factor), bias_norm=0.0)


class Scale(LipschitzLayer):
    """s·x in training; s is learned and begins at 1."""

    vector: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.register_buffer("vector", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        return x * self.factor

    def norm_request(self) -> NormRequest | None:
        """The matrix [s], whose norm is |s|: one product gives it exactly."""
        return NormRequest(self.factor.view(1, 1), self.vector)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`.

        Raises:
            ValueError: the factor is not finite.
        """
        factor = float(self.factor.detach().cpu())
        if not math.isfinite(factor):
            raise ValueError(f"layer {name!r}: the factor {factor} is not finite")
        return [ExportedScale(name, input_shape, factor)]
