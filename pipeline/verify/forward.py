"""The network in NumPy float64, and how far its arithmetic can be from the exact function.

Notable: convolutions gather their windows by strides and are one matrix product; nothing is shared
with the layers that made the certificate, down to the order of the sums. For each image
    e_0 = u ‖x_0‖ (1 + 2u),   e_{l+1} = L e_l + γ_{n+1}(a N + B) + n 2^-1000   (each × (1 + 1e-12))
(docs/certificate.md §5, statement R). For statement F the same recursion from e'_0 = 0 bounds what
any order of summation does at any float64 point within t of the image:
    e'_{l+1} = L e'_l + γ_{n+1}(a (N + e_l + Λ_l t + e'_l) + B) + n 2^-1000.
Here n is the fan-in, L the claimed bound of the layer (proved elsewhere), N the
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
from pipeline.verify.potential import evaluate_potential, potential_error
from pipeline.verify.residual import residual_error
from pipeline.verify.shapes import evaluate as evaluate_shape
from pipeline.verify.skew import evaluate_skew, skew_error
from pipeline.verify.torus import polyphase

UNIT = 2.0**-53
UNDERFLOW = 2.0**-1000
LARGEST = 2.0**1000
"""Larger magnitudes are taken for an overflow."""
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

    def after(self, bound: float, error: Float64, norms: Float64) -> Float64:
        """Error behind the layer, whose input has this error and norm."""
        sums = self.abs_norm * norms + self.bias_norm
        sums = np.where(sums < LARGEST, sums, np.inf)
        return (bound * error + self.gamma * sums + self.underflow) * SLACK

    @classmethod
    def of(cls, layer: Layer) -> LayerError | None:
        """None for layers that only compare or rearrange."""
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
        elif layer.weight is not None and layer.bias is not None:
            fan_in, abs_norm = layer.weight[0].size, abs_norm_upper(layer)
            bias_norm = _bias_norm_upper(layer)
            if layer.kind == "convex_potential":
                fan_in, abs_norm, bias_norm = potential_error(layer, abs_norm, bias_norm)
            elif layer.kind == "skew_exponential":
                fan_in, abs_norm, bias_norm = skew_error(layer, abs_norm, bias_norm)
        elif layer.branch is not None:
            absolute = [abs_norm_upper(part) for part in layer.branch]
            biases = [_bias_norm_upper(part) for part in layer.branch]
            fan_in, abs_norm, bias_norm = residual_error(
                layer, (absolute[0], absolute[1]), (biases[0], biases[1])
            )
        elif layer.kind == "average_pool":
            fan_in, abs_norm, bias_norm = layer.size**2, 1.0, 0.0
        else:
            return None
        return cls(ceil_float(gamma(fan_in + 1)), abs_norm, bias_norm, fan_in * UNDERFLOW)


@dataclass(frozen=True)
class Evaluation:
    """What is computed of B images."""

    logits: Float64
    """[B, K]."""
    error: Float64
    """[B], of the features."""
    rho: Float64
    """[B, K]: ρ_j bounds the rounding of row j of the head."""
    ball_error: Float64
    """[E, B], of the features anywhere within each distance; infinite on overflow."""
    ball_rho: Float64
    """[E, B, K], of the head there."""


class Forward:
    """Evaluates a network; `slice_size` images at a time fit the memory."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._errors = [LayerError.of(layer) for layer in network.layers]
        entries = max(_entries(layer) for layer in network.layers)
        self.slice_size = max(1, min(256, WINDOW_BYTES // (8 * entries)))
        self._row_norms = norm_upper(network.weight, (1,))
        self._head_gamma = ceil_float(gamma(network.weight.shape[1] + 1))

    def evaluate(self, images: np.ndarray, distances: Float64) -> Evaluation:
        """Logits and the bounds of their rounding; overflow gives values that are not finite.

        images: uint8 [B, H, W, C].
        distances: [E, B], radii of balls around each image.
        """
        x = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float64) / 255.0
        with np.errstate(over="ignore", invalid="ignore"):
            error = UNIT * _norms(x) * (1 + 2 * UNIT) * SLACK
            ball, steepness = np.zeros(distances.shape), 1.0
            for layer, constants in zip(self.network.layers, self._errors, strict=True):
                if constants is not None:
                    norms = _norms(x)
                    inside = _inside(norms, error, steepness, distances, ball)
                    ball = constants.after(layer.bound, ball, inside)
                    error = constants.after(layer.bound, error, norms)
                steepness *= layer.bound * GROW
                x = _evaluate(layer, x)
            logits = x @ self.network.weight.T + self.network.bias
            inside = _inside(_norms(x), error, steepness, distances, ball)
            return Evaluation(logits, error, self._rho(_norms(x)), ball, self._rho(inside))

    def _rho(self, norms: Float64) -> Float64:
        """Rounding of the head's rows for features of norms [...]: [..., K]."""
        sums = self._row_norms * norms[..., None] + np.abs(self.network.bias)
        sums = np.where(sums < LARGEST, sums, np.inf)
        features = self.network.weight.shape[1]
        return (self._head_gamma * sums + features * UNDERFLOW) * SLACK


def _inside(
    norms: Float64, error: Float64, steepness: float, distances: Float64, ball: Float64
) -> Float64:
    """Norms of what is computed anywhere within `distances`: [E, B]."""
    return (norms + error + steepness * distances + ball) * SLACK


def _evaluate(layer: Layer, x: Float64) -> Float64:
    """[B, *input_shape] -> [B, *output_shape]."""
    if layer.kind == "shift":
        return x - layer.center
    if layer.kind == "activation":
        return activate(layer.function, x)
    moved = evaluate_shape(layer.kind, layer.size, x)
    if moved is not None:
        return moved
    if layer.branch is not None:
        first, second = layer.branch
        hidden = evaluate_shape("minmax", 0, _convolve(first, x))
        assert hidden is not None
        return x + _convolve(second, hidden)
    assert layer.weight is not None and layer.bias is not None
    if layer.kind == "skew_exponential":
        plain = replace(layer, bias=np.zeros_like(layer.bias))
        return evaluate_skew(layer, x, lambda term: _convolve(plain, term))
    product = _convolve(layer, x) if layer.axes is not None else x @ layer.weight.T + layer.bias
    return evaluate_potential(layer, x, product) if layer.kind == "convex_potential" else product


def _convolve(layer: Layer, x: Float64) -> Float64:
    """Windows [B·H'·W', I·kh·kw] times the kernel [I·kh·kw, O]."""
    assert layer.weight is not None and layer.bias is not None and layer.axes is not None
    high, wide = layer.axes
    padding = [(0, 0), (0, 0), (high.padding, high.padding), (wide.padding, wide.padding)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, padding), (high.kernel, wide.kernel), axis=(2, 3)
    )[:, :, :: high.stride, :: wide.stride]  # [B, I, H', W', kh, kw]
    outputs, rows, columns = len(layer.weight), high.outputs, wide.outputs
    gathered = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(x) * rows * columns, -1)
    product = gathered @ layer.weight.reshape(outputs, -1).T + layer.bias
    return product.reshape(len(x), rows, columns, outputs).transpose(0, 3, 1, 2)


def _norms(x: Float64) -> Float64:
    """[B, ...] -> upper bounds of the norms [B]."""
    return norm_upper(x, tuple(range(1, x.ndim)))


def _entries(layer: Layer) -> int:
    """Float64 numbers that one image needs while `layer` is computed."""
    if layer.branch is not None:
        return max(_entries(part) for part in layer.branch)
    gathered = 0 if layer.axes is None or layer.weight is None else layer.weight[0].size
    return max(math.prod(layer.input_shape), gathered * math.prod(layer.output_shape[1:]))


def _bias_norm_upper(layer: Layer) -> float:
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
