"""delta against exact rational arithmetic, for several orders of summation."""

from fractions import Fraction
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch

from pipeline.certify.bounds import prove_bounds
from pipeline.certify.lipschitz_certifier import PIXELS, LipschitzCertifier
from pipeline.certify.rounding import LayerError, norm_upper, scale_up
from pipeline.layers.conv2d import ExportedConv2d
from pipeline.layers.dense import ExportedDense
from pipeline.layers.exported import ExportedLayer, Rounding
from pipeline.layers.flatten import ExportedFlatten
from pipeline.layers.head import ExportedHead
from pipeline.layers.minmax import ExportedMinMax
from pipeline.layers.network import ExportedNetwork
from pipeline.models import build_model
from tests.certify.kinds import ACTIVATIONS, mixed_network, plain
from tests.certify.small import (
    exact_layer,
    exact_logits,
    linear_network,
    random_images,
    small_network,
)

ORDERS = ("forward", "backward", "ascending", "positive then negative", "random")


def ordered_dot(row: np.ndarray, column: np.ndarray, bias: float, order: str) -> float:
    """fl(row · column + bias), summed one by one in the given order."""
    terms = row * column
    if order == "backward":
        terms = terms[::-1]
    elif order == "ascending":
        terms = terms[np.argsort(np.abs(terms))]
    elif order == "positive then negative":
        terms = terms[np.argsort(-terms)]
    elif order == "random":
        terms = np.random.default_rng(len(terms)).permutation(terms)
    total = bias if order == "backward" else 0.0
    for term in terms:
        total = total + term
    return total if order == "backward" else total + bias


class Reordered:
    """An exported layer whose sums are taken in another order."""

    def __init__(self, layer: ExportedLayer, order: str) -> None:
        self.layer, self.order = layer, order
        self.name, self.kind = layer.name, layer.kind

    def rounding(self) -> Rounding | None:
        return self.layer.rounding()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def dot(row: np.ndarray, column: np.ndarray, bias: float) -> float:
            return ordered_dot(row, column, bias, self.order)

        return torch.from_numpy(np.stack([plain(self.layer, image, dot) for image in x.numpy()]))


def reordered_certifier(network: ExportedNetwork, order: str) -> LipschitzCertifier:
    head = network.head

    def logits(features: torch.Tensor) -> torch.Tensor:
        weight, bias = head.weight.astype(np.float64), head.bias.astype(np.float64)
        return torch.tensor(
            [
                [ordered_dot(row, x, b, order) for row, b in zip(weight, bias, strict=True)]
                for x in features.numpy()
            ]
        )

    twin = SimpleNamespace(
        layers=[Reordered(layer, order) for layer in network.layers],
        head=head,
        logits=logits,
        input_shape=network.input_shape,
    )
    return LipschitzCertifier(twin, prove_bounds(network))


def worst_ratio(certifier: LipschitzCertifier, network: ExportedNetwork, images) -> float:
    """Largest |computed margin − exact margin| / delta; asserts that it is at most 1."""
    labels = torch.zeros(len(images), dtype=torch.int64)
    verdicts = certifier.certify(torch.from_numpy(images), labels)
    worst = 0.0
    for row, image in enumerate(images):
        exact = exact_logits(network, image)
        truth = exact[verdicts.predict[row]] - exact[verdicts.binding[row]]
        error = abs(Fraction(verdicts.margin[row]) - truth)
        assert error <= Fraction(verdicts.delta[row])
        worst = max(worst, float(error) / verdicts.delta[row])
    return worst


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e6])
def test_delta_covers_the_error_of_the_program(scale: float) -> None:
    ratios = []
    for seed in range(4):
        network = small_network(seed, scale)
        certifier = LipschitzCertifier(network, prove_bounds(network))
        ratios.append(worst_ratio(certifier, network, random_images(seed, 3)[0]))
    assert 1e-4 < max(ratios) < 1  # a bound, and not an empty one


@pytest.mark.parametrize("order", ORDERS)
def test_delta_covers_every_order_of_summation(order: str) -> None:
    network = small_network(11)
    certifier = reordered_certifier(network, order)
    assert worst_ratio(certifier, network, random_images(5, 6)[0]) > 1e-4


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_delta_covers_every_kind_of_layer(function: str) -> None:
    """Sums forwards by PyTorch, and in another order each time."""
    ratios = []
    for seed, scale in ((0, 0.4), (1, 5.0)):  # an activation that bends, and a saturated one
        network = mixed_network(function, seed, scale)
        images = random_images(seed, 2)[0]
        certifier = LipschitzCertifier(network, prove_bounds(network))
        ratios.append(worst_ratio(certifier, network, images))
        order = ORDERS[(ACTIVATIONS.index(function) + seed) % len(ORDERS)]
        worst_ratio(reordered_certifier(network, order), network, images)
    assert 1e-8 < max(ratios) < 1


def test_delta_covers_the_rounding_of_the_pixels() -> None:
    """One pixel, two classes, no arithmetic but v/255 itself and a product by ±1."""
    network = linear_network(np.array([[1.0], [-1.0]]), np.zeros(2), (1, 1, 1))
    certifier = LipschitzCertifier(network, prove_bounds(network))
    images = np.arange(1, 256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    assert worst_ratio(certifier, network, images) > 0.1


def test_delta_covers_errors_that_cancellation_lays_bare() -> None:
    """A trunk orthogonal to the image: tiny output, wrong by what its large terms rounded."""
    head = ExportedHead(np.array([[1.0], [-1.0]], np.float32), np.zeros(2, np.float32))
    ratios = []
    for seed in range(10):
        images = random_images(seed, 1)[0]
        image = images.ravel() / 255
        weight = 1e4 * np.random.default_rng(seed).standard_normal(16)
        weight -= (weight @ image) / (image @ image) * image
        weight = weight.astype(np.float32).reshape(1, 16)
        trunk = ExportedDense("dense", (16,), weight, np.zeros(1, np.float32))
        network = ExportedNetwork((ExportedFlatten("flatten", (1, 4, 4)), trunk), head, (1, 4, 4))
        certifier = LipschitzCertifier(network, prove_bounds(network))
        ratios.append(worst_ratio(certifier, network, images))
    assert max(ratios) > 0.01


def test_delta_is_the_formula_of_the_document() -> None:
    """docs/certificate.md §5, worked out again with 60 digits."""
    network = small_network(9)
    bounds = prove_bounds(network)
    certifier = LipschitzCertifier(network, bounds)
    images = random_images(9, 5)[0]
    verdicts = certifier.certify(torch.from_numpy(images), torch.zeros(5, dtype=torch.int64))
    with mpmath.workdps(60):
        u = mpmath.mpf(2) ** -53

        def gamma(n: int) -> mpmath.mpf:
            return n * u / (1 - n * u)

        def norm(values: np.ndarray) -> mpmath.mpf:
            return mpmath.norm([mpmath.mpf(float(v)) for v in values.ravel()])

        weight, bias = network.head.weight, network.head.bias
        for row, image in enumerate(images):
            x = PIXELS[torch.from_numpy(image[None]).long()]
            error = u * norm(x.numpy()) * (1 + 2 * u)
            for layer, bound in zip(network.layers, bounds, strict=True):
                if (r := layer.rounding()) is not None:
                    size = r.abs_norm * norm(x.numpy()) + r.bias_norm
                    error = bound.value * error + gamma(r.fan_in + 1) * size
                x = layer.forward(x)
            j, i = verdicts.predict[row], verdicts.binding[row]
            rho = sum(
                gamma(7) * (norm(weight[c]) * norm(x.numpy()) + abs(float(bias[c]))) for c in (j, i)
            )
            distance = norm(weight[j].astype(np.float64) - weight[i])
            formula = distance * error + rho + u * abs(verdicts.margin[row])
            assert formula <= verdicts.delta[row] <= formula * (1 + 1e-10)


def test_delta_survives_a_bias_of_a_million() -> None:
    network = small_network(3)
    network.head.bias[:] += np.float32(1e6)
    certifier = LipschitzCertifier(network, prove_bounds(network))
    images = random_images(2, 4)[0]
    assert worst_ratio(certifier, network, images) > 1e-3
    verdicts = certifier.certify(torch.from_numpy(images), torch.zeros(4, dtype=torch.int64))
    assert verdicts.delta.min() > 1e-10  # a million has ulps of 1e-10


@pytest.mark.parametrize("function", [None, *ACTIVATIONS])
def test_every_layer_is_within_its_own_recursion(function: str | None) -> None:
    network = small_network(7) if function is None else mixed_network(function, 7)
    bounds = prove_bounds(network)
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    error = np.zeros(1)
    exact = np.array([Fraction(v) for v in x.numpy().ravel()]).reshape(1, 4, 4)
    for layer, bound in zip(network.layers, bounds, strict=True):
        if layer.rounding() is not None:
            error = LayerError.of(bound.value, layer.rounding()).after(error, norm_upper(x))
        x, exact = layer.forward(x), exact_layer(layer, exact)
        squared = sum(
            (Fraction(a) - b) ** 2 for a, b in zip(x.numpy().ravel(), exact.ravel(), strict=True)
        )
        assert squared <= Fraction(error[0]) ** 2


def test_norm_upper_is_above_the_norm_and_close() -> None:
    rng = np.random.default_rng(0)
    for size, scale in ((1, 1.0), (1000, 1e-120), (1000, 1e150), (4096, 1.0)):
        x = rng.standard_normal((3, size)) * scale
        bound = norm_upper(torch.from_numpy(x))
        for row, b in zip(x, bound, strict=True):
            squared = sum(Fraction(v) ** 2 for v in row)
            assert squared <= Fraction(b) ** 2 <= squared * Fraction(1 + 1e-9)
    assert norm_upper(torch.tensor([[1e-200, 1e-170]], dtype=torch.float64))[0] >= 1e-170
    assert np.isinf(norm_upper(torch.tensor([[1e200]], dtype=torch.float64)))[0]
    assert np.isnan(norm_upper(torch.tensor([[np.nan]], dtype=torch.float64)))[0]


def test_scale_up_keeps_zeros_and_rounds_outwards() -> None:
    distances = np.array([0.0, 0.1, 1.7, 5e-324])
    scaled = scale_up(distances, 3.3)
    assert scaled[0] == 0
    for before, after in zip(distances[1:], scaled[1:], strict=True):
        assert Fraction(after) >= Fraction(before) * Fraction(3.3)
    assert not scale_up(distances, 0.0).any()


def wide_layer(layer: ExportedLayer, x: np.ndarray) -> np.ndarray:
    """One layer in 80-bit arithmetic, 2048 times finer than float64."""
    if isinstance(layer, ExportedConv2d):
        p, s, kernel = layer.padding, layer.stride, layer.weight.shape[2:]
        padded = np.pad(x, ((0, 0), (p, p), (p, p)))
        views = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
        y = np.einsum("chwab,ocab->ohw", views[:, ::s, ::s], layer.weight.astype(np.longdouble))
        return y + layer.bias[:, None, None]
    if isinstance(layer, ExportedDense):
        return np.einsum("i,oi->o", x, layer.weight.astype(np.longdouble)) + layer.bias
    if isinstance(layer, ExportedMinMax):
        first, second = np.split(x, 2)
        return np.concatenate([np.maximum(first, second), np.minimum(first, second)])
    return x.ravel() if isinstance(layer, ExportedFlatten) else x - np.longdouble(layer.center)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no 80-bit floats here")
def test_delta_on_a_whole_liresnet_against_higher_precision() -> None:
    """Where exact rationals would take hours: 16×16 photographs' worth of sums, and a head."""
    torch.manual_seed(0)
    network = build_model("liresnet", 10, 32, in_channels=3, depth=2, width=16).export()
    certifier = LipschitzCertifier(network, prove_bounds(network))
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    verdicts = certifier.certify(torch.from_numpy(images), torch.zeros(3, dtype=torch.int64))
    head = network.head.weight.astype(np.longdouble)
    for row, image in enumerate(images):
        x = image.astype(np.longdouble) / 255
        for layer in network.layers:
            x = wide_layer(layer, x)
        logits = np.einsum("i,oi->o", x, head) + network.head.bias
        off = verdicts.margin[row] - (logits[verdicts.predict[row]] - logits[verdicts.binding[row]])
        # The reference is itself off by at most delta/2048.
        assert abs(off) <= verdicts.delta[row] * (1 - 2.0**-10)
        assert 1e-7 * verdicts.delta[row] < abs(off)
