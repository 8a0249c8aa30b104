"""Truncated exponentials, y = Σ_{j ≤ J} Aʲx/j! + b with a skew convolution A: constant, arithmetic.

A is skew if its kernel satisfies K[o, i, t, v] = −K[i, o, k−1−t, k−1−v], which is checked entry by
entry. Then A is normal with eigenvalues iλ, |λ| ≤ ‖A‖, and so is the sum; by Taylor's remainder for
e^{iλ} its norm is at most 1 + U^{J+1}/(J+1)! for any U ≥ ‖A‖. The evidence of a certificate names
U; it is proved here, and the sum is compared with the claim exactly.

Rounding. With n the length of the sums of one product and a ≥ ‖|A|‖, the computed output is at most
γ_{J(n+2)+1}·(Σ aʲ/j!·‖x‖ + ‖b‖) from the exact one at the same x: J times a product, a division and
a sum, and the bias. Here it is summed from the other end (Horner), which has the same bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from pipeline.verify.layers import Layer
from pipeline.verify.norms import Advance, Proof, prove_convolution
from pipeline.verify.outward import GROW, Float64

TINY = 2.0**-900


def prove_skew(layer: Layer, advance: Advance) -> Proof:
    """That the claim of a truncated exponential is not below its constant."""
    assert layer.weight is not None and layer.axes is not None
    turned = layer.weight.swapaxes(0, 1)[:, :, ::-1, ::-1]
    if not np.array_equal(layer.weight, -turned):
        return Proof(math.inf, False, "its kernel is not skew")
    proof = prove_convolution(layer.weight, layer.axes, layer.inner, layer.hint, advance)
    if not proof.holds:
        return Proof(math.inf, False, f"of its kernel {proof.bound!r}, {proof.how}")
    terms = layer.size + 1
    constant = 1 + Fraction(layer.inner) ** terms / math.factorial(terms)
    bound = float(constant) * GROW
    return Proof(min(bound, layer.bound), constant <= Fraction(layer.bound), proof.how)


def evaluate_skew(layer: Layer, x: Float64, multiply: Callable[[Float64], Float64]) -> Float64:
    """Y from x and the product with A (without bias): [B, C, H, W] -> the same."""
    assert layer.bias is not None
    total = x
    for number in range(layer.size, 0, -1):
        total = x + multiply(total) / number
    return total + layer.bias[:, None, None]


def skew_error(layer: Layer, absolute: float, bias: float) -> tuple[int, float, float]:
    """(J·(n + 2), Σ aʲ/j!, ‖b‖): what the recursion of `forward` takes for an affine layer."""
    assert layer.weight is not None
    total = term = 1.0
    for number in range(1, layer.size + 1):
        term = term * absolute / number * GROW
        total = (total + term) * GROW
    return layer.size * (layer.weight[0].size + 2), total, (bias + total * TINY * GROW) * GROW
