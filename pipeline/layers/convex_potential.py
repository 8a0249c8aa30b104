"""x − h·Wᵀ relu(Wx + b) as certified: the Convex Potential Layer (Meunier et al. 2022, Section 4).

Theorem: its Lipschitz constant is at most max(1, h·‖W‖² − 1). Between any two points the layer acts
as I − h·WᵀDW with a diagonal 0 ≤ D ≤ I, whose eigenvalues lie in [1 − h·‖W‖², 1].

Notable:
- Training divides by a moving estimate of ‖W‖ that approaches it from below, so that its step is a
  little too long. `freeze` replaces it by a stored number: the largest float32 not above 2/U², U a
  proved bound of ‖W‖ for the stored W. Accuracy, certificate and deployment all use that h.
- W is scaled by a power of two, which h and b undo, so that no step leaves the range of float32.
- The same function is what other papers call SLL (h = 2, scaled rows) and, for two channels, the
  Householder activation (Remark 2): they are exported as this kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.layers.conv2d import convolve
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.records import require_shape, tensor
from pipeline.lipschitz.abs_norms import bias_norm_upper, conv_abs_norm_upper, dense_abs_norm_upper
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.conv import conv2d_norm_bound
from pipeline.lipschitz.dense import dense_norm_bound
from pipeline.lipschitz.proofs import proved_once
from pipeline.lipschitz.rounding import add_up, down, mul_up, silent, up

TINY = 2.0**-900
"""Added to ‖b‖ where rounding is bounded: room for products that underflow and are multiplied by h
afterwards."""


@dataclass(frozen=True)
class ExportedConvexPotential(ExportedLayer):
    """A Convex Potential Layer as certified, dense or convolutional ("same" padding, stride 1).

    Raises:
        ValueError: weight, bias, step and input shape do not fit each other, an even kernel, or a
            negative step.
    """

    kind: ClassVar[str] = "convex_potential"
    presumed_lipschitz: ClassVar[float | None] = 1.0

    weight: np.ndarray = field(metadata=tensor())
    """W: [hidden, D] or [hidden, C, k, k] with odd k, float32."""
    bias: np.ndarray = field(metadata=tensor(ndim=1))
    """B: [hidden] float32."""
    step: np.ndarray = field(metadata=tensor(ndim=1))
    """H: [1] float32, at least 0."""
    known: NormBound | None = field(default=None, compare=False, repr=False)
    """Bound of ‖W‖, where the export has proved it already."""

    def __post_init__(self) -> None:
        weight, shape = self.weight, self.input_shape
        if weight.ndim not in (2, 4) or len(shape) != weight.ndim - 1:
            raise ValueError(
                f"layer {self.name!r}: a weight of shape {list(weight.shape)} does not take inputs "
                f"of shape {list(shape)}"
            )
        require_shape(f"input of {self.name}", shape, (weight.shape[1], *shape[1:]))
        require_shape(f"{self.name}.bias", self.bias.shape, weight.shape[:1])
        require_shape(f"{self.name}.step", self.step.shape, (1,))
        if self.is_convolution and (weight.shape[2] != weight.shape[3] or not weight.shape[2] % 2):
            raise ValueError(
                f"layer {self.name!r}: a kernel of {weight.shape[2]}×{weight.shape[3]} cannot keep "
                "the size of its maps: take a square one of odd side"
            )
        if not self.step[0] >= 0:
            raise ValueError(
                f"layer {self.name!r}: the step is {self.step[0]}, expected at least 0"
            )

    @property
    def is_convolution(self) -> bool:
        """Whether W is a kernel."""
        return self.weight.ndim == 4

    @property
    def padding(self) -> int:
        """Zeros on each side of the maps."""
        return self.weight.shape[-1] // 2

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The input's."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] or [B, C, H, W] -> the same shape, float64."""
        step = float(self.step[0])
        if not self.is_convolution:
            weight = torch.from_numpy(self.weight).to(x)
            hidden = torch.relu(x @ weight.T + torch.from_numpy(self.bias).to(x))
            return x - step * (hidden @ weight)
        hidden = torch.relu(convolve(x, self.weight, self.bias, 1, self.padding))
        # The transpose of a convolution with "same" padding is one with the kernel turned about.
        turned = self.weight.swapaxes(0, 1)[:, :, ::-1, ::-1].copy()  # no negative strides
        nothing = np.zeros(len(turned), np.float32)
        return x - step * convolve(hidden, turned, nothing, 1, self.padding)

    def norm_bound(self) -> NormBound:
        """max(1, h·U² − 1), U the proved bound of ‖W‖."""
        norm = self.known if self.known is not None else weight_norm(self.weight, self.input_shape)
        value = potential_lipschitz(float(self.step[0]), norm.value)
        evidence = {"weight_norm": norm.value, **norm.evidence}
        if not math.isfinite(value):
            return NormBound(math.inf, "none", {"reason": "the norm of the weight is not finite"})
        return NormBound(value, f"potential-{norm.method}", evidence)

    def rounding(self) -> Rounding:
        """As of the matrix I + h·|W|ᵀ|W| with the bias h·|W|ᵀ|b| (docs/certificate.md §5).

        Fan-in: the sums of both products, and two roundings for h and the difference.
        """
        if self.is_convolution:
            absolute = conv_abs_norm_upper(self.weight, 1, self.padding)
        else:
            absolute = dense_abs_norm_upper(self.weight)
        step, positions = float(self.step[0]), math.prod(self.input_shape[1:])
        back, shift = mul_up(step, absolute), add_up(bias_norm_upper(self.bias, positions), TINY)
        outer = max(1.0, absolute)
        return Rounding(
            fan_in=self.weight[0].size + self.weight[:, 0].size + 2,
            abs_norm=add_up(1.0, mul_up(back, absolute)),
            bias_norm=mul_up(back, shift),
            inner_norm=mul_up(outer, absolute),  # before the step makes it small
            inner_bias=mul_up(outer, shift),
        )


def freeze(
    name: str,
    input_shape: tuple[int, ...],
    weight: np.ndarray,
    bias: np.ndarray,
    step: float = math.inf,
) -> ExportedConvexPotential:
    """The layer with the longest step up to `step` that is proved to keep it 1-Lipschitz.

    Args:
        name: of the layer.
        input_shape: of one input.
        weight: W, [hidden, D] or [hidden, C, k, k], float64.
        bias: b, [hidden], float64.
        step: wanted; by default as long as it may be.

    Raises:
        ValueError: as `ExportedConvexPotential`.
    """
    size = float(np.linalg.norm(weight))
    exponent = math.frexp(size)[1] if math.isfinite(size) else 0
    stored = np.ldexp(weight, -exponent).astype(np.float32)
    shift = np.ldexp(bias, -exponent).astype(np.float32)
    norm = weight_norm(stored, input_shape)
    longest = longest_step(norm.value)
    wanted = np.float32(math.ldexp(step, 2 * exponent) if math.isfinite(step) else math.inf)
    frozen = np.array([min(wanted, longest)], np.float32)
    return ExportedConvexPotential(name, input_shape, stored, shift, frozen, known=norm)


@silent
def longest_step(norm: float) -> np.float32:
    """The largest float32 h with h·`norm`² ≤ 2; 1 where the norm is 0, 0 where it is not finite."""
    if norm == 0:
        return np.float32(1)
    if not math.isfinite(norm):
        return np.float32(0)
    exact = down(2 / mul_up(norm, norm))
    step = np.float32(exact)
    return step if float(step) <= exact else np.nextafter(step, np.float32(0))


@silent
def potential_lipschitz(step: float, norm: float) -> float:
    """max(1, h·U² − 1), rounded up, for a step h ≥ 0 and a bound U of ‖W‖."""
    steepest = mul_up(step, norm, norm)
    return max(1.0, up(steepest - 1)) if steepest > 2 else 1.0 if steepest <= 2 else math.inf


def weight_norm(weight: np.ndarray, input_shape: tuple[int, ...]) -> NormBound:
    """Proved bound of ‖W‖ at this input size; in an export, of one rank for all."""

    def prove() -> NormBound:
        if weight.ndim == 2:
            return dense_norm_bound(weight)
        size = (input_shape[1], input_shape[2])
        return conv2d_norm_bound(weight, size, 1, weight.shape[-1] // 2)

    return proved_once(weight, input_shape, prove)
