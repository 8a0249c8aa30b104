"""Convex potential layers, y = x − h·Wᵀ max(0, Wx + b): their constant, and their arithmetic.

Theorem. Between any two points the layer acts as I − h·WᵀDW with a diagonal 0 ≤ D ≤ I. The
eigenvalues of WᵀDW lie between 0 and ‖W‖², so for h ≥ 0 its norm is at most max(1, h·‖W‖² − 1).
A claim b ≥ 1 is thus proved by ‖W‖ ≤ √((1 + b)/h).

Rounding. With n₁ and n₂ the lengths of the two sums, a ≥ ‖|W|‖ and B ≥ ‖b‖, the computed output is
at most γ_{n₁+n₂+3}·((1 + h·a²)·‖x‖ + h·a·B) from the exact one at the same x: the first product
errs by γ_{n₁+1}(a‖x‖ + B), which the second carries by h·a; the second, h and the difference err by
γ_{n₂+2}·h·a‖r̂‖ with ‖r̂‖ ≤ (1 + γ_{n₁+1})(a‖x‖ + B); the difference also by u‖x‖; and
γ_i + γ_j + γ_iγ_j ≤ γ_{i+j}. Products that underflow before they are multiplied by h are covered by
adding 2^-900 to B.

Notable: the transposed convolution adds the columns of one product to shifted windows; the
certifier turns the kernel about and convolves again.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from pipeline.verify.layers import Layer
from pipeline.verify.norms import Advance, Proof, prove_convolution, prove_dense
from pipeline.verify.outward import GROW, Float64

TINY = 2.0**-900


def prove_potential(layer: Layer, advance: Advance) -> Proof:
    """That the claim of a convex potential layer is not below its constant."""
    assert layer.weight is not None
    if not layer.bound >= 1:
        return Proof(1.0, False, "no such layer is proved to contract")
    if layer.step == 0:
        return Proof(1.0, True, "its step is 0")
    target = root_floor(Fraction(1 + Fraction(layer.bound)) / Fraction(layer.step))
    if layer.axes is None:
        proof = prove_dense(layer.weight, target)
    else:
        proof = prove_convolution(layer.weight, layer.axes, target, layer.hint, advance)
    reached = max(1.0, (layer.step * proof.bound**2 - 1) * GROW)
    bound = min(reached, layer.bound) if proof.holds else reached
    return Proof(bound, proof.holds, f"step {layer.step:.6g}, {proof.how}")


def evaluate_potential(layer: Layer, x: Float64, hidden: Float64) -> Float64:
    """Y from x and the computed Wx + b: [B, ...] -> [B, ...]."""
    assert layer.weight is not None
    active = np.maximum(hidden, 0.0)
    if layer.axes is None:
        return x - layer.step * (active @ layer.weight)
    high, wide = layer.axes
    outputs, channels = layer.weight.shape[:2]
    padded = np.zeros(
        (len(x), channels, high.inputs + 2 * high.padding, wide.inputs + 2 * wide.padding)
    )
    columns = layer.weight.reshape(outputs, -1).T @ active.reshape(len(x), outputs, -1)
    columns = columns.reshape(len(x), channels, high.kernel, wide.kernel, *active.shape[2:])
    for row in range(high.kernel):
        for column in range(wide.kernel):
            window = padded[:, :, row : row + high.outputs, column : column + wide.outputs]
            window += columns[:, :, row, column]
    inside = padded[
        :, :, high.padding : high.padding + high.inputs, wide.padding : wide.padding + wide.inputs
    ]
    return x - layer.step * inside


def potential_error(layer: Layer, absolute: float, bias: float) -> tuple[int, float, float]:
    """(n₁ + n₂ + 2, 1 + h·a², h·a·B): what the recursion of `forward` takes for an affine layer.

    Args:
        layer: of this kind.
        absolute: a.
        bias: B.
    """
    assert layer.weight is not None
    fan_in = layer.weight[0].size + layer.weight[:, 0].size + 2
    back = layer.step * absolute * GROW
    return fan_in, (1 + back * absolute * GROW) * GROW, back * (bias + TINY) * GROW


def root_floor(value: Fraction) -> float:
    """The square root of a positive fraction, not above it, to a few units in the last place."""
    root = math.sqrt(value.numerator / value.denominator)
    while Fraction(root) ** 2 > value:
        root = math.nextafter(root, 0.0)
    return root
