"""A strided, zero-padded convolution as one of stride 1, and the torus that it fits in.

With x_r[J] = x[sJ + r] the convolution is y[i] = Σ_r Σ_τ w_{r,τ} x_r[i + τ]: stride 1, s times as
many input channels per axis, fewer taps (docs/certificate.md §2).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.lipschitz.rounding import Float64


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution."""

    kernel: int
    stride: int
    padding: int

    @property
    def before(self) -> int:
        """P: polyphase taps have offsets from −P."""
        return -(-self.padding // self.stride)

    @property
    def after(self) -> int:
        """Q: to +Q. Negative where the kernel is shorter than the padding."""
        return (self.kernel - 1 - self.padding) // self.stride

    @property
    def taps(self) -> int:
        """P + Q + 1, the number of polyphase taps."""
        return self.before + self.after + 1

    def outputs(self, inputs: int) -> int:
        """m, the number of outputs; not positive where the kernel does not fit."""
        return (inputs + 2 * self.padding - self.kernel) // self.stride + 1

    def torus(self, inputs: int) -> int:
        """N = max(n', m, n' + P, m + Q), the least torus that holds the convolution as a corner.

        At stride 1, outputs that see padding only are zero whatever the input: without them the
        operator is that of padding k − 1.
        """
        if self.stride == 1 and self.padding > self.kernel - 1:
            return Axis(self.kernel, 1, self.kernel - 1).torus(inputs)
        phases, outputs = -(-inputs // self.stride), self.outputs(inputs)
        return max(phases, outputs, phases + self.before, outputs + self.after)


def polyphase(weight: Float64, axes: tuple[Axis, Axis]) -> Float64:
    """Kernel [O, I, kh, kw] -> taps [T_h, T_w, O, I·r_h·r_w] of an equivalent of stride 1.

    Tap (0, 0) has the offset (−P_h, −P_w). Of the s_h·s_w phases only those that a tap reads are
    kept (all of them unless the kernel is smaller than the stride); the others are zero columns.
    """
    outputs, inputs = weight.shape[:2]
    steps, phases = [], []
    for axis in axes:
        offsets = np.arange(axis.kernel) - axis.padding  # = s·τ + r
        steps.append(offsets // axis.stride + axis.before)
        phases.append(np.unique(offsets % axis.stride, return_inverse=True)[1])
    shape = (axes[0].taps, axes[1].taps, outputs, inputs, phases[0].max() + 1, phases[1].max() + 1)
    taps = np.zeros(shape)
    for row in range(axes[0].kernel):
        for column in range(axes[1].kernel):
            place = taps[steps[0][row], steps[1][column]]
            place[:, :, phases[0][row], phases[1][column]] = weight[:, :, row, column]
    return taps.reshape(*shape[:3], -1)


def axes_of(weight: Float64, stride: Any, padding: Any) -> tuple[Axis, Axis]:
    """The two axes of a convolution with kernel `weight` [O, I, kh, kw].

    Raises:
        ValueError: stride or padding is not an integer or a pair, or out of range.
    """
    strides, paddings = int_pair(stride, "stride", 1), int_pair(padding, "padding", 0)
    first, second = (
        Axis(*numbers) for numbers in zip(weight.shape[2:], strides, paddings, strict=True)
    )
    return first, second


def int_pair(value: Any, name: str, least: int) -> tuple[int, int]:
    """`value` or (`value`, `value`), both at least `least`.

    Raises:
        ValueError: otherwise.
    """
    try:
        first, second = value if isinstance(value, tuple | list) else (value, value)
        pair = operator.index(first), operator.index(second)
    except (TypeError, ValueError):
        pair = (least - 1, least - 1)
    if min(pair) < least:
        raise ValueError(
            f"{name} is {value!r}: an integer of at least {least} is needed, or a pair"
        )
    return pair
