"""The network in NumPy float64, and how far its arithmetic can be from the exact function.

Notable: convolutions gather their windows by strides and are one matrix product; nothing is shared
with the layers that made the certificate, down to the order of the sums. The recursions of rounding
stand in `rounding.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pipeline.verify.circular import repeated
from pipeline.verify.elementary import activate
from pipeline.verify.implicit import evaluate_implicit
from pipeline.verify.layers import Layer
from pipeline.verify.network import Network
from pipeline.verify.outward import GROW, Float64, ceil_float, gamma, norm_upper
from pipeline.verify.potential import evaluate_potential
from pipeline.verify.rounding import LARGEST, SLACK, UNDERFLOW, UNIT, LayerError
from pipeline.verify.shapes import evaluate as evaluate_shape
from pipeline.verify.skew import evaluate_skew
from pipeline.verify.slope_residual import evaluate_slope_residual

WINDOW_BYTES = 128 * 2**20
"""Memory for the gathered windows of one slice of images."""


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
    if layer.kind == "scale":
        return x * layer.factor
    if layer.kind == "activation":
        return activate(layer.function, x)
    if layer.outer is not None:
        return evaluate_slope_residual(layer, x)
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
    if layer.kind == "implicit_potential":
        return evaluate_implicit(layer, x, lambda y: _affine(layer, y))
    product = _affine(layer, repeated(layer, x) if layer.kind == "circular_conv2d" else x)
    return evaluate_potential(layer, x, product) if layer.kind == "convex_potential" else product


def _affine(layer: Layer, x: Float64) -> Float64:
    """Wx + b."""
    assert layer.weight is not None and layer.bias is not None
    return _convolve(layer, x) if layer.axes is not None else x @ layer.weight.T + layer.bias


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
