"""How far what is computed of a layer can be from the exact layer, here and anywhere in the ball.

For each image
    e_0 = u ‖x_0‖ (1 + 2u),   e_{l+1} = L e_l + γ_{n+1}(a N + B) + n 2^-1000   (each × (1 + 1e-12))
(docs/certificate.md §5, statement R). For statement F the same recursion from e'_0 = 0 bounds what
any order of summation does at any float64 point within t of the image:
    e'_{l+1} = L e'_l + γ_{n+1}(a (N + e_l + Λ_l t + e'_l) + B) + n 2^-1000.
Here n is the fan-in, L the claimed bound of the layer (proved elsewhere), N the measured norm of
its input, B of its bias, and a ≥ ‖|W|‖ by Collatz and Wielandt: for a non-negative matrix S and
any positive vector v, ‖S‖² ≤ max_i (SᵀS v)_i / v_i.

Notable: both hold while nothing overflows. A layer made of several sums can hold numbers inside
that are far larger than its outputs; their size has its own constants, `inner_norm`, `inner_bias`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pipeline.verify.elementary import ERROR_UNITS, SLOPES
from pipeline.verify.implicit import implicit_error
from pipeline.verify.layers import Layer
from pipeline.verify.outward import GROW, Float64, ceil_float, gamma, norm_upper
from pipeline.verify.potential import potential_error
from pipeline.verify.residual import residual_error
from pipeline.verify.skew import skew_error
from pipeline.verify.slope_residual import slope_residual_error
from pipeline.verify.torus import polyphase

UNIT = 2.0**-53
UNDERFLOW = 2.0**-1000
LARGEST = 2.0**1000
"""Larger magnitudes are taken for an overflow."""
SLACK = 1 + 1e-12
AT_ZERO = {"softplus": math.log(2) * (1 + 2.0**-50), "sigmoid": 0.5}


@dataclass(frozen=True)
class LayerError:
    """The constants of one affine layer in the recursion."""

    gamma: float
    abs_norm: float
    bias_norm: float
    underflow: float
    inner_norm: float = 0.0
    """Nothing inside the layer is larger than `inner_norm`·N + `inner_bias`,"""
    inner_bias: float = 0.0
    """or than a·N + B."""

    def after(self, bound: float, error: Float64, norms: Float64) -> Float64:
        """Error behind the layer, whose input has this error and norm."""
        sums = self.abs_norm * norms + self.bias_norm
        inside = self.inner_norm * norms + self.inner_bias
        sums = np.where((sums < LARGEST) & (inside < LARGEST), sums, np.inf)
        return (bound * error + self.gamma * sums + self.underflow) * SLACK

    @classmethod
    def of(cls, layer: Layer) -> LayerError | None:
        """None for layers that only compare or rearrange."""
        inner = 0.0, 0.0
        if layer.kind == "shift":
            fan_in, abs_norm = 1, 1.0
            bias_norm = abs(layer.center) * math.sqrt(math.prod(layer.input_shape)) * GROW
        elif layer.kind == "scale":
            fan_in, abs_norm, bias_norm = 1, abs(layer.factor), 0.0
        elif layer.kind == "activation":
            if layer.function == "relu":
                return None
            fan_in, abs_norm = ERROR_UNITS, float(SLOPES[layer.function][1])
            # |φ(x)| ≤ β|x| + |φ(0)|, |φ(0)| ≤ ln 2, and 1 where |φ| is less
            largest = 1 + AT_ZERO.get(layer.function, 0.0)
            bias_norm = math.sqrt(math.prod(layer.input_shape)) * largest * GROW
        elif layer.outer is not None:
            outer, first = abs_norm_upper(replace(layer, weight=layer.outer)), abs_norm_upper(layer)
            at_zero = AT_ZERO.get(layer.function, 0.0)
            inner = _through(max(1.0, outer), first, bias_norm_upper(layer) + at_zero)
            fan_in, abs_norm, bias_norm = slope_residual_error(layer, first, outer, at_zero)
        elif layer.weight is not None and layer.bias is not None:
            fan_in, abs_norm = layer.weight[0].size, abs_norm_upper(layer)
            bias_norm = bias_norm_upper(layer)
            if layer.kind == "convex_potential":
                inner = _through(max(1.0, abs_norm), abs_norm, bias_norm)
                fan_in, abs_norm, bias_norm = potential_error(layer, abs_norm, bias_norm)
            elif layer.kind == "implicit_potential":
                (fan_in, abs_norm, bias_norm), inner = implicit_error(layer, abs_norm, bias_norm)
            elif layer.kind == "skew_exponential":
                fan_in, abs_norm, bias_norm = skew_error(layer, abs_norm, bias_norm)
                inner = layer.size * abs_norm * GROW, 0.0  # each product is divided afterwards
        elif layer.branch is not None:
            absolute = [abs_norm_upper(part) for part in layer.branch]
            biases = [bias_norm_upper(part) for part in layer.branch]
            inner = _through(max(1.0, absolute[1]), absolute[0], biases[0])
            fan_in, abs_norm, bias_norm = residual_error(
                layer, (absolute[0], absolute[1]), (biases[0], biases[1])
            )
        elif layer.kind == "average_pool":
            fan_in, abs_norm, bias_norm = layer.size**2, 1.0, 0.0
            inner = float(layer.size**2), 0.0
        else:
            return None
        return cls(ceil_float(gamma(fan_in + 1)), abs_norm, bias_norm, fan_in * UNDERFLOW, *inner)


def _through(second: float, first: float, bias: float) -> tuple[float, float]:
    """Size of the numbers between two products: second·(first·N + bias), as (norm, bias)."""
    return second * first * GROW, second * bias * GROW


def bias_norm_upper(layer: Layer) -> float:
    """Upper bound of ‖b‖ over all positions."""
    assert layer.bias is not None
    if layer.axes is None:
        return float(norm_upper(layer.bias, (0,))) * GROW
    positions = math.prod(axis.outputs for axis in layer.axes)
    return float(norm_upper(layer.bias, (0,))) * math.sqrt(positions) * GROW


def abs_norm_upper(layer: Layer) -> float:
    """Upper bound of ‖|W|‖: of the matrix of absolute values, summed over taps for a convolution.

    With non-negative taps the largest frequency block of the torus is the one at frequency 0.
    """
    assert layer.weight is not None
    matrix, sums = np.abs(layer.weight), 0
    if layer.axes is not None:
        taps = polyphase(matrix, layer.axes)
        matrix, sums = taps.sum(axis=(0, 1)), taps.shape[0] * taps.shape[1]
    outputs, inputs = matrix.shape
    vector = np.ones(inputs)
    rounding = ceil_float(1 + 2 * gamma(2 * (inputs + outputs + sums)))
    best = math.sqrt(matrix.sum(axis=0).max()) * math.sqrt(matrix.sum(axis=1).max()) * rounding
    for _ in range(20):
        image = matrix.T @ (matrix @ vector)
        best = min(best, math.sqrt(float(np.max(image / vector))) * rounding * GROW)
        vector = np.maximum(
            image / (image.max() or 1.0), 1e-30
        )  # stays positive: any such v is valid
    return best * GROW
