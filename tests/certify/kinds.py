"""Every kind of exported layer written out plainly, for numbers of any type and any way to add.

`plain` follows the definition of a layer entry by entry; how a sum of products is made is given to
it: exactly, for Fractions, or in floats in some order. Smooth activations, which are not rational,
come from 60 digits of mpmath.
"""

from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import torch

from pipeline.layers.activation import ExportedActivation
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.layers.convex_potential import ExportedConvexPotential
from pipeline.layers.dense import ExportedDense
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.flatten import ExportedFlatten
from pipeline.layers.group_sort import ExportedGroupSort
from pipeline.layers.head import ExportedHead
from pipeline.layers.minmax import ExportedMinMax
from pipeline.layers.network import ExportedNetwork
from pipeline.layers.pooling import ExportedAveragePool, ExportedMaxPool
from pipeline.layers.residual import ExportedResidual
from pipeline.layers.shift import ExportedShift
from pipeline.layers.skew import ExportedSkewExponential
from pipeline.lipschitz.slopes import LEAK

Dot = Callable[[np.ndarray, np.ndarray, object], object]
"""(row, column, bias) -> row · column + bias."""
ACTIVATIONS = ("relu", "leaky_relu", "softplus", "sigmoid", "tanh")


def exact_dot(row: np.ndarray, column: np.ndarray, bias: Fraction) -> Fraction:
    """In rational numbers."""
    return row.dot(column) + bias


def plain(layer: ExportedLayer, x: np.ndarray, dot: Dot) -> np.ndarray:
    """The layer at one input without batch; entries are floats or Fractions.

    Args:
        layer: of any kind that is certified but those that only place numbers elsewhere.
        x: of the layer's input shape.
        dot: how sums of products are made.
    """
    exact = x.dtype == object

    def numbers(array: np.ndarray) -> np.ndarray:
        return fractions(array) if exact else array.astype(np.float64)

    def number(value: float) -> object:
        return Fraction(float(value)) if exact else float(value)

    def affine(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride=1, padding=0):
        rows = numbers(weight).reshape(len(weight), -1)
        if weight.ndim == 2:
            return np.array([dot(row, x, b) for row, b in zip(rows, numbers(bias), strict=True)])
        columns, shape = gathered(x, weight.shape[2], stride, padding)
        values = [
            [dot(row, column, b) for column in columns]
            for row, b in zip(rows, numbers(bias), strict=True)
        ]
        return np.array(values).reshape(len(rows), *shape)

    def turned(weight: np.ndarray) -> np.ndarray:
        return weight.T if weight.ndim == 2 else weight.swapaxes(0, 1)[:, :, ::-1, ::-1]

    match layer:
        case ExportedShift():
            return x - number(layer.center)
        case ExportedFlatten():
            return x.ravel()
        case ExportedMinMax():
            return halves_sorted(x)
        case ExportedGroupSort():
            groups = x.reshape(-1, layer.size, *x.shape[1:])
            return np.sort(groups, axis=1).reshape(x.shape)
        case ExportedConv2d():
            return affine(x, layer.weight, layer.bias, layer.stride, layer.padding)
        case ExportedDense():
            return affine(x, layer.weight, layer.bias)
        case ExportedConvexPotential():
            padding = layer.weight.shape[-1] // 2 if layer.weight.ndim == 4 else 0
            hidden = affine(x, layer.weight, layer.bias, padding=padding)
            hidden = np.maximum(hidden, 0 * hidden)
            back = turned(layer.weight)
            return x - number(layer.step[0]) * affine(
                hidden, back, np.zeros(len(back)), padding=padding
            )
        case ExportedResidual():
            (first, second), paddings = layer.weights, [w.shape[2] // 2 for w in layer.weights]
            hidden = halves_sorted(affine(x, first, layer.biases[0], padding=paddings[0]))
            return x + affine(hidden, second, layer.biases[1], padding=paddings[1])
        case ExportedSkewExponential():
            total = term = x
            nothing, padding = np.zeros(len(layer.bias)), layer.weight.shape[2] // 2
            for count in range(1, layer.terms + 1):
                term = affine(term, layer.weight, nothing, padding=padding) / number(count)
                total = total + term
            return total + numbers(layer.bias).reshape(-1, 1, 1)
        case ExportedAveragePool() | ExportedMaxPool():
            size, shape = layer.size, layer.output_shape
            windows = x.reshape(shape[0], shape[1], size, shape[2], size).transpose(0, 1, 3, 2, 4)
            windows = windows.reshape(*shape, size**2)
            if isinstance(layer, ExportedMaxPool):
                return windows.max(axis=-1)
            ones, nothing = numbers(np.ones(size**2)), number(0)
            sums = [dot(ones, window, nothing) for window in windows.reshape(-1, size**2)]
            return np.array(sums).reshape(shape) / number(size)
        case ExportedActivation():
            if exact:
                return np.array([activated(layer.function, v) for v in x.ravel()]).reshape(x.shape)
            return layer.forward(torch.from_numpy(x)).numpy()
    raise AssertionError(f"no plain version of {layer.kind}")


def gathered(
    x: np.ndarray, kernel: int, stride: int, padding: int
) -> tuple[list[np.ndarray], tuple[int, int]]:
    """The windows [C·k·k] of a zero-padded map, and how many there are along each axis."""
    zero = 0 * x.flat[0]
    space = (padding, padding)
    padded = np.pad(x, ((0, 0), space, space), constant_values=zero)
    high, wide = ((side - kernel) // stride + 1 for side in padded.shape[1:])
    windows = [
        padded[:, stride * i : stride * i + kernel, stride * j : stride * j + kernel].ravel()
        for i in range(high)
        for j in range(wide)
    ]
    return windows, (high, wide)


def halves_sorted(x: np.ndarray) -> np.ndarray:
    """MinMax."""
    first, second = np.split(x, 2)
    return np.concatenate([np.maximum(first, second), np.minimum(first, second)])


def activated(function: str, x: Fraction) -> Fraction:
    """φ(x), to 60 digits where it is not rational."""
    if function == "relu":
        return max(x, Fraction(0))
    if function == "leaky_relu":
        return x if x > 0 else x * Fraction(LEAK)
    with mpmath.workdps(60):
        z = mpmath.mpf(x.numerator) / x.denominator
        y = {
            "softplus": lambda: mpmath.log1p(mpmath.exp(z)),
            "sigmoid": lambda: 1 / (1 + mpmath.exp(-z)),
            "tanh": lambda: mpmath.tanh(z),
        }[function]()
        mantissa, exponent = mpmath.frexp(y)
        return Fraction(int(mpmath.ldexp(mantissa, 220))) * Fraction(2) ** (int(exponent) - 220)


def fractions(array: np.ndarray) -> np.ndarray:
    """Each float as the rational number that it is."""
    flat = [Fraction(float(v)) for v in array.ravel()]
    return np.array(flat, dtype=object).reshape(array.shape)


def mixed_network(function: str, seed: int, scale: float = 1.0, classes: int = 3):
    """A network of every kind of layer: [1, 4, 4] images, `classes` logits."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, spread: float = scale) -> np.ndarray:
        return (spread * rng.standard_normal(shape)).astype(np.float32)

    skew = draw(2, 2, 3, 3, spread=0.2)
    return ExportedNetwork(
        layers=(
            ExportedShift("shift", (1, 4, 4), 0.3),
            ExportedConv2d("stem", (1, 4, 4), draw(2, 1, 3, 3), draw(2), stride=1, padding=1),
            ExportedGroupSort("sort", (2, 4, 4), 2),
            ExportedConvexPotential(
                "potential", (2, 4, 4), draw(3, 2, 3, 3), draw(3), np.array([0.3], np.float32)
            ),
            ExportedAveragePool("average", (2, 4, 4), 2),
            ExportedResidual(
                "residual",
                (2, 2, 2),
                (draw(4, 2, 3, 3), draw(2, 4, 1, 1)),
                (draw(4), draw(2)),
            ),
            ExportedSkewExponential(
                "skew", (2, 2, 2), skew - skew.swapaxes(0, 1)[:, :, ::-1, ::-1], draw(2), 3
            ),
            ExportedMaxPool("largest", (2, 2, 2), 2),
            ExportedFlatten("flatten", (2, 1, 1)),
            ExportedDense("dense", (2,), draw(4, 2), draw(4)),
            ExportedActivation("act", (4,), function),
            ExportedConvexPotential(
                "dense_potential", (4,), draw(3, 4), draw(3), np.array([0.2], np.float32)
            ),
            ExportedMinMax("minmax", (4,)),
        ),
        head=ExportedHead(draw(classes, 4), draw(classes)),
        input_shape=(1, 4, 4),
    )
