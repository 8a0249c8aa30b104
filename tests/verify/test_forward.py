"""Own logits, own delta and own distances against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.verify.forward import Forward
from pipeline.verify.head import HeadDistances
from pipeline.verify.layers import Layer
from pipeline.verify.network import Network, read_network
from pipeline.verify.outward import gamma, norm_upper, sqrt_ceil
from pipeline.verify.strict_json import Record
from pipeline.verify.torus import Axis
from tests.verify.mini import Mini


def exact(array: np.ndarray) -> np.ndarray:
    return np.array([Fraction(x) for x in array.ravel().tolist()], object).reshape(array.shape)


def exact_layer(layer: Layer, x: np.ndarray) -> np.ndarray:
    """[C, H, W] or [D] of fractions -> the same, by loops."""
    if layer.kind == "shift":
        return x - Fraction(layer.center)
    if layer.kind == "flatten":
        return x.ravel()
    if layer.kind == "minmax":
        first, second = np.split(x, 2)
        return np.concatenate([np.maximum(first, second), np.minimum(first, second)])
    assert layer.weight is not None and layer.bias is not None
    weight, bias = exact(layer.weight), exact(layer.bias)
    if layer.kind == "dense":
        return weight.dot(x) + bias
    assert layer.axes is not None
    high, wide = layer.axes
    padded = np.full(
        (len(x), x.shape[1] + 2 * high.padding, x.shape[2] + 2 * wide.padding), Fraction(0)
    )
    padded[:, high.padding :, wide.padding :][:, : x.shape[1], : x.shape[2]] = x
    out = np.empty(layer.output_shape, object)
    for o, i, j in np.ndindex(*layer.output_shape):
        top, left = i * high.stride, j * wide.stride
        window = padded[:, top : top + high.kernel, left : left + wide.kernel]
        out[o, i, j] = (weight[o] * window).sum() + bias[o]
    return out


def small_network(seed: int, center: float = 0.5, scale: float = 1.0) -> Network:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32).astype(np.float64)

    axis = Axis(5, 3, 2, 1)
    layers = [
        Layer("shift", "shift", (1, 5, 5), (1, 5, 5), 1.0, center=center),
        Layer("conv", "conv2d", (1, 5, 5), (4, 3, 3), 9.0 * 2 * scale * 3,
              draw(4, 1, 3, 3), draw(4), axes=(axis, axis)),
        Layer("act", "minmax", (4, 3, 3), (4, 3, 3), 1.0),
        Layer("flat", "flatten", (4, 3, 3), (36,), 1.0),
        Layer("dense", "dense", (36,), (6,), 60.0 * scale, draw(6, 36), draw(6)),
    ]  # fmt: skip
    return Network(layers, draw(3, 6), draw(3), (1, 5, 5))


@pytest.mark.parametrize(("center", "scale"), [(0.5, 1.0), (0.0, 1e-5), (1e6, 1.0), (0.1, 1e6)])
def test_delta_covers_the_rounding(center: float, scale: float) -> None:
    for seed in range(3):
        network = small_network(seed, center, scale)
        images = np.random.default_rng(seed).integers(0, 256, (3, 5, 5, 1), dtype=np.uint8)
        found = Forward(network).evaluate(images, np.zeros((1, 3)))
        logits, error, rho = found.logits, found.error, found.rho
        distances = HeadDistances(network.weight)
        for number, image in enumerate(images):
            x = exact(image.transpose(2, 0, 1).astype(float)) / 255
            for layer in network.layers:
                x = exact_layer(layer, x)
            truth = exact(network.weight).dot(x) + exact(network.bias)
            for j in range(3):
                for i in range(3):
                    margin = float(logits[number, j] - logits[number, i])
                    delta = distances.upper[j, i] * error[number] + rho[number, j] + rho[number, i]
                    delta += 2.0**-53 * abs(margin)
                    assert abs(Fraction(margin) - (truth[j] - truth[i])) <= Fraction(float(delta))


def test_forward_is_the_function_of_the_records() -> None:
    """Against torch, on the network of the hand-written certificate."""
    mini = Mini.make()
    tensors = {name: array.astype(np.float64) for name, array in mini.tensors.items()}
    network = read_network(Record(mini.certificate, "certificate.json"), tensors)
    logits = Forward(network).evaluate(mini.images, np.zeros((1, len(mini.images)))).logits
    np.testing.assert_allclose(logits, mini.logits, rtol=0, atol=1e-13)


def test_convolution_with_unequal_axes() -> None:
    random = np.random.default_rng(0)
    weight, bias = random.standard_normal((4, 3, 2, 3)), random.standard_normal(4)
    high, wide = Axis(7, 2, 2, 0), Axis(6, 3, 1, 2)
    shape = (4, high.outputs, wide.outputs)
    layer = Layer("conv", "conv2d", (3, 7, 6), shape, 1.0, weight, bias, axes=(high, wide))
    head = np.eye(2, int(np.prod(shape)))
    network = Network(
        [layer, Layer("flat", "flatten", shape, (int(np.prod(shape)),), 1.0)],
        head, np.zeros(2), (3, 7, 6),
    )  # fmt: skip
    images = random.integers(0, 256, (2, 7, 6, 3), dtype=np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    expected = F.conv2d(
        x, torch.from_numpy(weight), torch.from_numpy(bias), stride=(2, 1), padding=(0, 2)
    )
    logits = Forward(network).evaluate(images, np.zeros((1, 2))).logits
    np.testing.assert_allclose(logits, expected.flatten(1).numpy()[:, :2], atol=1e-13)


@pytest.mark.parametrize("gap", [0.0, 1e-30, 1e-17, 1e-9, 1e-4, 1.0])
def test_distances_of_near_equal_rows(gap: float) -> None:
    random = np.random.default_rng(4)
    base = random.standard_normal(40)
    weight = np.stack([base + gap * random.standard_normal(40) for _ in range(4)])
    weight = weight.astype(np.float32).astype(np.float64)
    distances = HeadDistances(weight)
    rows = exact(weight)
    for j in range(4):
        for i in range(4):
            square = sum((rows[j] - rows[i]) ** 2)
            assert Fraction(float(distances.lower[j, i])) ** 2 <= square
            assert Fraction(float(distances.upper[j, i])) ** 2 >= square
            assert distances.upper[j, i] <= distances.lower[j, i] * (1 + 1e-11)
            root = sqrt_ceil(square)
            assert distances.is_at_least(root, 1.0, j, i)
            if root > 0:
                below = root * (1 - 2.0**-50)
                assert Fraction(below) ** 2 < square
                assert not distances.is_at_least(below, 1.0, j, i)


def test_outward_helpers() -> None:
    assert gamma(0) == 0
    random = np.random.default_rng(9)
    for scale in (1.0, 2.0**-400, 2.0**400):
        values = random.standard_normal((5, 30)) * scale
        for row, bound in zip(values, norm_upper(values, (1,)), strict=True):
            assert Fraction(float(bound)) ** 2 >= sum(Fraction(x) ** 2 for x in row.tolist())
            assert bound <= np.linalg.norm(row) * (1 + 1e-13)
