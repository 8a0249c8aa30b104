"""Circular convolutions, y[i] = Σ_t W_t x[i + t mod n] + b with a kernel as large as the maps.

Theorem. Shifts of the torus Z/H × Z/W commute, so the discrete Fourier transform takes the operator
to its blocks A(f/H, g/W), one for every frequency; its norm is the largest of theirs.

Notable: an ordinary convolution of the maps repeated to 2n − 1 pixels is the same function, which
is how it is evaluated and how its rounding is bounded (of a non-negative kernel the block at
frequency 0 is the largest, with or without wrapping).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pipeline.verify.layers import Layer
from pipeline.verify.norms import Advance, Proof, prove_on
from pipeline.verify.outward import Float64
from pipeline.verify.refusal import quote, require
from pipeline.verify.tensors import TensorStore
from pipeline.verify.torus import Axis, Torus, polyphase

LARGEST_KERNEL = 2**28
"""Numbers in a kernel: a small file must not ask for hours."""


def read_circular(name: str, shape: tuple[int, ...], bound: float, store: TensorStore) -> Layer:
    """The layer with its tensors; the geometry is that of the repeated maps."""
    weight, bias = store.take(f"{name}.weight", 4), store.take(f"{name}.bias", 1)
    require(
        shape == weight.shape[1:] and bias.shape == weight.shape[:1],
        f"layer {quote(name)}: input {list(shape)}, weight {list(weight.shape)} and bias "
        f"{list(bias.shape)} do not fit",
    )
    require(weight.size <= LARGEST_KERNEL, f"layer {quote(name)}: its kernel is too large")
    high, wide = (Axis(2 * size - 1, size, 1, 0) for size in shape[1:])
    output = (weight.shape[0], *shape[1:])
    return Layer(name, "circular_conv2d", shape, output, bound, weight, bias, axes=(high, wide))


def prove_circular(layer: Layer, advance: Advance) -> Proof:
    """That the claim is not below the norm of any frequency's block."""
    assert layer.weight is not None and layer.axes is not None
    if not layer.weight.any():
        return Proof(0.0, layer.bound >= 0, "zero kernel")
    torus = Torus((layer.input_shape[1], layer.input_shape[2]), (Fraction(0), Fraction(0)))
    taps = polyphase(layer.weight, layer.axes)
    return prove_on(taps, layer.axes, torus, layer.bound, advance)


def repeated(layer: Layer, x: Float64) -> Float64:
    """The maps [B, I, H, W] as an ordinary convolution takes them: [B, I, 2H − 1, 2W − 1]."""
    _, high, wide = layer.input_shape
    return np.pad(x, [(0, 0), (0, 0), (0, high - 1), (0, wide - 1)], mode="wrap")
