"""The network in NumPy float64, and how far its arithmetic can be from the exact function.

Notable: convolutions gather their windows by strides and are one matrix product; nothing is shared
with the layers that made the certificate, down to the order of the sums. For each image
    e_0 = u ‖x_0‖ (1 + 2u),   e_{l+1} = L e_l + γ_{n+1}(a N + B) + n 2^-1000   (each × (1 + 1e-12))
(docs/certificate.md §5): n the fan-in, L the claimed bound of the layer (proved elsewhere), N the
measured norm of its input, B of its bias, and a ≥ ‖|W|‖ by Collatz and Wielandt: for a non-negative
matrix S and any positive vector v, ‖S‖² ≤ max_i (SᵀS v)_i / v_i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pipeline.verify.elementary import ERROR_UNITS, SLOPES, activate
from pipeline.verify.layers import Layer
from pipeline.verify.network import Network
from pipeline.verify.outward import GROW, Float64, ceil_float, gamma, norm_upper
from pipeline.verify.slope_residual import evaluate_slope_residual, slope_residual_error
from pipeline.verify.torus import polyphase

UNIT = 2.0**-53
UNDERFLOW = 2.0**-1000
SLACK = 1 + 1e-12
AT_ZERO = {"softplus": math.log(2) * (1 + 2.0**-50), "sigmoid": 0.5}
WINDOW_BYTES = 128 * 2**20
"""Memory for the gathered windows of one slice of images."""


@dataclass(frozen=True)
class LayerError:
    """The constants of one affine layer in the recursion."""

    gamma: float
    abs_norm: float
    bias_norm: float
    underflow: float

    @classmethod
    def of(cls, layer: Layer) -> LayerError | None:
        """None for layers that only compare or rearrange."""
        positions = math.prod(layer.output_shape[1:])
        if layer.kind == "shift":
            fan_in, abs_norm = 1, 1.0
            bias_norm = abs(layer.center) * math.sqrt(math.prod(layer.input_shape)) * GROW
        elif layer.kind == "activation":
            if layer.function == "relu":
                return None
            fan_in, abs_norm = ERROR_UNITS, float(SLOPES[layer.function][1])
            # |φ(x)| ≤ β|x| + |φ(0)|, |φ(0)| ≤ ln 2, and 1 where |φ| is less
            largest = 1 + AT_ZERO.get(layer.function, 0.0)
            bias_norm = math.sqrt(math.prod(layer.input_shape)) * largest * GROW
        elif layer.outer is not None:
            outer = abs_norm_upper(replace(layer, weight=layer.outer))
            at_zero = AT_ZERO.get(layer.function, 0.0)
            fan_in, abs_norm, bias_norm = slope_residual_error(
                layer, abs_norm_upper(layer), outer, at_zero
            )
        elif layer.weight is not None and layer.bias is not None:
            fan_in, abs_norm = layer.weight[0].size, abs_norm_upper(layer)
            bias_norm = float(norm_upper(layer.bias, (0,))) * math.sqrt(positions) * GROW
        else:
            return None
        return cls(ceil_float(gamma(fan_in + 1)), abs_norm, bias_norm, fan_in * UNDERFLOW)


class Forward:
    """Evaluates a network; `slice_size` images at a time fit the memory."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._errors = [LayerError.of(layer) for layer in network.layers]
        entries = max(_entries(layer) for layer in network.layers)
        self.slice_size = max(1, min(256, WINDOW_BYTES // (8 * entries)))
        self._row_norms = norm_upper(network.weight, (1,))
        self._head_gamma = ceil_float(gamma(network.weight.shape[1] + 1))

    def logits(self, images: np.ndarray) -> tuple[Float64, Float64, Float64]:
        """uint8 [B, H, W, C] -> logits [B, K], error of the features [B], ρ [B, K].

        ρ_j bounds the rounding of row j of the head. Overflow gives values that are not finite.
        """
        x = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float64) / 255.0
        with np.errstate(over="ignore", invalid="ignore"):
            error = UNIT * _norms(x) * (1 + 2 * UNIT) * SLACK
            for layer, constants in zip(self.network.layers, self._errors, strict=True):
                if constants is not None:
                    own = constants.abs_norm * _norms(x) + constants.bias_norm
                    error = layer.bound * error + constants.gamma * own + constants.underflow
                    error = error * SLACK
                x = _evaluate(layer, x)
            logits = x @ self.network.weight.T + self.network.bias
            rho = self._row_norms * _norms(x)[:, None] + np.abs(self.network.bias)
            rho = (self._head_gamma * rho + x.shape[1] * UNDERFLOW) * SLACK
        return logits, error, rho


def _evaluate(layer: Layer, x: Float64) -> Float64:
    """[B, *input_shape] -> [B, *output_shape]."""
    if layer.kind == "shift":
        return x - layer.center
    if layer.kind == "flatten":
        return x.reshape(len(x), -1)
    if layer.kind == "activation":
        return activate(layer.function, x)
    if layer.outer is not None:
        return evaluate_slope_residual(layer, x)
    if layer.kind == "minmax":
        half = x.shape[1] // 2
        pair = x[:, :half], x[:, half:]
        return np.concatenate([np.maximum(*pair), np.minimum(*pair)], axis=1)
    assert layer.weight is not None and layer.bias is not None
    if layer.kind == "dense":
        return x @ layer.weight.T + layer.bias
    return _convolve(layer, x)


def _convolve(layer: Layer, x: Float64) -> Float64:
    """Windows [B·H'·W', I·kh·kw] times the kernel [I·kh·kw, O]."""
    assert layer.weight is not None and layer.bias is not None and layer.axes is not None
    high, wide = layer.axes
    padding = [(0, 0), (0, 0), (high.padding, high.padding), (wide.padding, wide.padding)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, padding), (high.kernel, wide.kernel), axis=(2, 3)
    )[:, :, :: high.stride, :: wide.stride]  # [B, I, H', W', kh, kw]
    outputs, rows, columns = layer.output_shape
    gathered = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(x) * rows * columns, -1)
    product = gathered @ layer.weight.reshape(outputs, -1).T + layer.bias
    return product.reshape(len(x), rows, columns, outputs).transpose(0, 3, 1, 2)


def _norms(x: Float64) -> Float64:
    """[B, ...] -> upper bounds of the norms [B]."""
    return norm_upper(x, tuple(range(1, x.ndim)))


def _entries(layer: Layer) -> int:
    """Float64 numbers that one image needs while `layer` is computed."""
    gathered = 0 if layer.axes is None or layer.weight is None else layer.weight[0].size
    return max(math.prod(layer.input_shape), gathered * math.prod(layer.output_shape[1:]))


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
