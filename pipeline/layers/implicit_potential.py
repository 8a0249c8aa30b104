"""The implicit step of a convex potential (Meunier et al. 2022, Remark 1, Appendix C.2).

    z = x − Wᵀrelu(Wz + b), the minimiser of ½‖z − x‖² + Σψ(Wz + b), by K steps
    y ← (y − τ·Wᵀrelu(Wy + b)) + τ·(x − y) from y = x

The exact step is 1-Lipschitz for every W. Theorem: so is every truncation, if τ·(2 + ‖W‖²) ≤ 2.
Between two inputs a step acts on the differences as Δy ← ((1 − τ)I − τ·WᵀDW)Δy + τΔx with
0 ≤ D ≤ I; the matrix has its eigenvalues in [1 − τ − τ‖W‖², 1 − τ], of modulus at most 1 − τ, so
‖Δy‖ ≤ ‖Δx‖ is kept: (1 − τ) + τ = 1.

Notable: an option to study, not to win with. It costs K layers, and the paper found nothing
competitive. Training takes τ from the estimate of ‖W‖; the exported τ is the largest float32 below
2/(2 + U²), U a proved bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor

from pipeline.layers.convex_potential import TINY, ExportedConvexPotential, weight_norm
from pipeline.layers.cpl import ConvexPotentialConv2d, ConvexPotentialDense
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import to_float32, whole
from pipeline.lipschitz.abs_norms import bias_norm_upper, conv_abs_norm_upper, dense_abs_norm_upper
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.rounding import add_up, down, mul_up, silent, up

ITERATIONS = 5
"""K. With ‖W‖ = 1 the distance to the exact step falls to a third with each."""


@dataclass(frozen=True)
class ExportedImplicitPotential(ExportedConvexPotential):
    """The truncated implicit step as certified; `step` is τ."""

    kind: ClassVar[str] = "implicit_potential"

    iterations: int = field(default=ITERATIONS, metadata=whole(least=1))
    """K."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] or [B, C, H, W] -> the same shape, float64."""
        step, y = float(self.step[0]), x
        for _ in range(self.iterations):
            y = super().forward(y) + step * (x - y)
        return y

    def norm_bound(self) -> NormBound:
        """1 if τ·(2 + U²) ≤ 2; else what the recursion of the differences gives."""
        norm = self.known if self.known is not None else weight_norm(self.weight, self.input_shape)
        value = implicit_lipschitz(float(self.step[0]), norm.value, self.iterations)
        if not math.isfinite(value):
            return NormBound(math.inf, "none", {"reason": "the norm of the weight is not finite"})
        return NormBound(
            value, f"implicit-{norm.method}", {"weight_norm": norm.value, **norm.evidence}
        )

    def rounding(self) -> Rounding:
        """K times as of the matrix (1 + τ + τ|W|ᵀ|W|)y + τ|x| (docs/certificate.md §8)."""
        if self.is_convolution:
            absolute = conv_abs_norm_upper(self.weight, 1, self.padding)
        else:
            absolute = dense_abs_norm_upper(self.weight)
        step, positions = float(self.step[0]), math.prod(self.input_shape[1:])
        shift = add_up(bias_norm_upper(self.bias, positions), TINY)
        grows = add_up(1.0, step, mul_up(step, absolute, absolute))
        total, offset = 1.0, 0.0
        for _ in range(self.iterations):
            total = add_up(mul_up(grows, total), step)
            offset = add_up(mul_up(grows, offset), mul_up(step, absolute, shift))
        inside = add_up(1.0, absolute)
        square = mul_up(inside, inside)
        return Rounding(
            fan_in=self.iterations * (self.weight[0].size + self.weight[:, 0].size + 6),
            abs_norm=total,
            bias_norm=offset,
            inner_norm=mul_up(square, total),
            inner_bias=add_up(mul_up(square, offset), mul_up(inside, shift)),
        )


@silent
def implicit_lipschitz(step: float, norm: float, iterations: int) -> float:
    """Upper bound of the constant for a step τ ≥ 0, a bound U of ‖W‖ and K iterations."""
    if mul_up(step, add_up(2.0, mul_up(norm, norm))) <= 2:
        return 1.0
    steepest = max(up(1 - step), up(mul_up(step, add_up(1.0, mul_up(norm, norm))) - 1))
    value = 1.0
    for _ in range(iterations):
        value = add_up(mul_up(steepest, value), step)
    return value


@silent
def implicit_step(norm: float) -> np.float32:
    """A float32 τ just below 2/(2 + `norm`²); 0 where the norm is not finite."""
    if not math.isfinite(norm):
        return np.float32(0)
    exact = down(2 / add_up(2.0, mul_up(norm, norm)))
    return np.nextafter(np.nextafter(np.float32(exact), np.float32(0)), np.float32(0))


class ImplicitPotentialDense(ConvexPotentialDense):
    """[B, D] -> [B, D].

    Args:
        features: D.
        hidden: rows of W.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        """See the module; `norm` is the estimate of ‖W‖."""
        return _descend(self, x, norm)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return _export(self, name, input_shape)


class ImplicitPotentialConv2d(ConvexPotentialConv2d):
    """[B, C, H, W] -> the same.

    Args:
        channels: C.
        hidden: channels between the two convolutions.
        kernel_size: odd.
        input_size: H = W of the maps.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int, input_size: int) -> None:
        super().__init__(channels, hidden, kernel_size, input_size)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        """See the module; `norm` is the estimate of ‖W‖."""
        return _descend(self, x, norm)

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        return _export(self, name, input_shape)


def _descend(
    layer: ConvexPotentialDense | ConvexPotentialConv2d, x: Tensor, norm: Tensor | None
) -> Tensor:
    """K iterations with τ = 2/(2 + ‖W‖²)."""
    assert norm is not None, "the network passes the estimate of scale_request"
    step, y = 2 / (2 + norm.square()), x
    for _ in range(ITERATIONS):
        y = y - step * layer.gradient(y) + step * (x - y)
    return y


def _export(
    layer: ConvexPotentialDense | ConvexPotentialConv2d, name: str, input_shape: tuple[int, ...]
) -> list[ExportedLayer]:
    """The weights as they are, and τ from their proved norm."""
    weight, bias = to_float32(layer.weight), to_float32(layer.bias)
    norm = weight_norm(weight, input_shape)
    step = np.array([implicit_step(norm.value)], np.float32)
    return [ExportedImplicitPotential(name, input_shape, weight, bias, step, known=norm)]
