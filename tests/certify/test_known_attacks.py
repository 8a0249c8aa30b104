"""Known attacks on certifiers, each against this one. What broke whom: the docstrings.

Others stand with what they attack: networks that behave differently under another order of
summation in test_ball.py, declared layers that differ from the stored weights in
tests/verify/alterations.py, padded data sets in test_whole_set.py, circ(n) in
tests/lipschitz/test_conv.py, TF32, Strassen and emulated products in test_probe.py.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from pipeline.certify import certifier
from pipeline.certify.bounds import prove_bounds
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.layers.dense import ExportedDense
from pipeline.layers.flatten import ExportedFlatten
from pipeline.layers.head import ExportedHead
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz import certified_conv2d_norm, certified_dense_norm
from pipeline.lipschitz.tight import tight_conv2d_norm_bound
from pipeline.models import build_model
from tests.certify.small import exact_logits, linear_network, random_images, small_network
from tests.lipschitz.explicit import convolution_norm, kernel_of


def exact_radius_squared(network: ExportedNetwork, image: np.ndarray, label: int) -> Fraction:
    """Squared distance of an image to the nearest boundary of a linear network; 0 if misled."""
    logits = exact_logits(network, image)
    nearest = None
    for other in range(len(logits)):
        if other == label:
            continue
        margin = logits[label] - logits[other]
        if margin <= 0:
            return Fraction(0)
        rows = network.head.weight[[label, other]].astype(np.float64)
        gap = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(*rows.tolist(), strict=True))
        if gap > 0 and (nearest is None or margin**2 / gap < nearest):
            nearest = margin**2 / gap
    assert nearest is not None
    return nearest


@pytest.mark.parametrize("scale", [1e-5, 1e-12, 1e-30])
def test_weights_of_1e_minus_5(scale: float) -> None:
    """gloro issue 8: power iteration divided by (norm + 1e-6), and bounds were 5.7 % too low."""
    for seed in range(4):
        weight = scale * kernel_of("random", (3, 2, 3, 3), seed)
        truth = convolution_norm(weight, (6, 6), (1, 1), (1, 1))
        assert certified_conv2d_norm(weight, 6, 1, 1) >= truth * (1 + 1e-12)
        assert tight_conv2d_norm_bound(weight, 6, 1, 1).value >= truth * (1 + 1e-12)
        matrix = scale * np.random.default_rng(seed).standard_normal((5, 7))
        assert certified_dense_norm(matrix) >= np.linalg.norm(matrix, 2) * (1 + 1e-12)
    plain = LipschitzCertifier(small_network(1), prove_bounds(small_network(1)))
    tiny = small_network(1, scale)
    scaled = LipschitzCertifier(tiny, prove_bounds(tiny))
    # Three layers with weights: the constant must scale with them.
    assert scaled.lipschitz_bound == pytest.approx(plain.lipschitz_bound * scale**3, rel=1e-4)


def test_all_logits_equal() -> None:
    """gloro issue 9: a mask of every logit equal to the largest left no rival, and certified."""
    for bias in (0.0, 1.0, -3.5, 1e12):
        network = linear_network(np.zeros((4, 16)), np.full(4, bias), (1, 4, 4))
        images = torch.from_numpy(random_images(0, 8)[0])
        for label in range(4):
            verdicts = certifier(network).certify(images, torch.full((8,), label))
            assert not verdicts.radius.any() and not verdicts.radius_float.any()
            assert not verdicts.correct.any()


def test_tied_logits_found_by_descent() -> None:
    """gloro issue 9 again: an input that ties exactly, found for any weights by descent."""
    reached = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weight = rng.integers(-4, 5, (3, 16)).astype(float)
        weight[0, 0], weight[1, 0] = 1, 0  # one pixel moves the difference by single levels
        network = linear_network(weight, np.zeros(3), (1, 4, 4))
        image = rng.integers(60, 190, 16).astype(int)
        slope = (weight[0] - weight[1]).astype(int)
        for _ in range(3000):  # coordinate descent on |f_0 − f_1|
            value = int(slope @ image)
            if value == 0:
                break
            pixel = int(rng.integers(0, 16)) if abs(value) > 8 else 0
            image[pixel] = np.clip(image[pixel] - np.sign(value * slope[pixel]), 0, 255)
        pixels = image.astype(np.uint8).reshape(1, 1, 4, 4)
        exact = exact_logits(network, pixels[0])
        if exact[0] != exact[1] or max(exact) != exact[0]:
            continue
        reached += 1
        for label in (0, 1):
            verdicts = certifier(network).certify(torch.from_numpy(pixels), torch.tensor([label]))
            assert verdicts.radius[0] == 0 and verdicts.radius_float[0] == 0
    assert reached >= 5


@pytest.mark.parametrize("bias", [0.0, 1e6, 1e12, 1e30])
def test_biases_that_swallow_margins(bias: float) -> None:
    """Verifiers were fooled by 1e12: what is left of a margin there is rounding."""
    certified = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        biases = rng.standard_normal(3) + bias
        network = linear_network(rng.standard_normal((3, 16)), biases, (1, 4, 4))
        images, labels = random_images(seed, 4)
        labels = np.array([int(np.argmax(exact_logits(network, image))) for image in images])
        verdicts = certifier(network).certify(torch.from_numpy(images), torch.from_numpy(labels))
        for row, image in enumerate(images):
            truth = exact_radius_squared(network, image, int(labels[row]))
            assert Fraction(verdicts.radius[row]) ** 2 <= truth
            certified += verdicts.radius[row] > 0
    assert certified > 0 or bias == 1e30


def test_biases_in_the_trunk_that_swallow_everything() -> None:
    """A neuron computes (x + 1e12) − 1e12: exactly x, in floats a multiple of 1e-4."""
    big = np.float32(1e12)
    network = ExportedNetwork(
        (
            ExportedFlatten("flatten", (1, 2, 2)),
            ExportedDense("up", (4,), np.eye(4, dtype=np.float32), np.full(4, big)),
            ExportedDense("down", (4,), np.eye(4, dtype=np.float32), np.full(4, -big)),
        ),
        ExportedHead(np.eye(2, 4, dtype=np.float32), np.zeros(2, np.float32)),
        (1, 2, 2),
    )
    certify = certifier(network)
    for value in range(0, 256, 5):
        image = np.array([[[[value, 100], [0, 0]]]], np.uint8)
        exact = exact_logits(network, image[0])
        label = int(exact[1] > exact[0])
        radius = certify.certify(torch.from_numpy(image), torch.tensor([label])).radius[0]
        # The distance to the boundary x_0 = x_1 is |x_0 − x_1|/√2.
        assert 2 * Fraction(radius) ** 2 <= (exact[0] - exact[1]) ** 2
        assert radius > 0 or abs(value - 100) < 10


@pytest.mark.parametrize("seed", range(6))
def test_linear_classifiers_of_any_scale(seed: int) -> None:
    """Jin et al. 2022 broke half of all random linear classifiers by rounding of the radius."""
    rng = np.random.default_rng(seed)
    certified = 0
    for _ in range(25):
        weight = rng.standard_normal((3, 16)) * 10.0 ** rng.integers(-12, 12)
        if rng.random() < 0.3:  # near-equal rows, whose Gram form is below the truth
            weight[1] = weight[0] * (1 + 1e-6)
        network = linear_network(weight, np.zeros(3), (1, 4, 4))
        images = random_images(int(rng.integers(2**31)), 2)[0]
        labels = np.array([int(np.argmax(exact_logits(network, image))) for image in images])
        verdicts = certifier(network).certify(torch.from_numpy(images), torch.from_numpy(labels))
        for row, image in enumerate(images):
            truth = exact_radius_squared(network, image, int(labels[row]))
            assert Fraction(verdicts.radius[row]) ** 2 <= truth
            assert verdicts.radius_float[row] <= verdicts.radius[row]
            certified += verdicts.radius[row] > 0
    assert certified > 30


@pytest.mark.parametrize("exponent", [-150, 150])
def test_norms_beyond_1e150(exponent: int) -> None:
    """Squares of such weights leave float64."""
    weight = kernel_of("random", (3, 2, 3, 3), 0)
    truth = convolution_norm(weight, (5, 5), (1, 1), (1, 1)) * 10.0**exponent
    for bound in (
        certified_conv2d_norm(weight * 10.0**exponent, 5, 1, 1),
        tight_conv2d_norm_bound(weight * 10.0**exponent, 5, 1, 1).value,
    ):
        assert truth * (1 + 1e-12) <= bound < truth * 1.1


@pytest.mark.parametrize("scale", [1e-36, 1e36])
def test_networks_whose_constant_is_beyond_1e150(scale: float) -> None:
    """Stored weights are float32; five layers of 1e±36 reach 1e±180, ten leave float64.

    Squares of features beyond 1e±154 leave it sooner: nothing is certified there, wrongly or not.
    """
    for depth, is_certified in ((4, True), (5, False), (10, False)):
        weight = (scale * np.eye(16)).astype(np.float32)
        layers = tuple(
            ExportedDense(f"dense{n}", (16,), weight, np.zeros(16, np.float32))
            for n in range(depth)
        )
        head = ExportedHead(np.eye(2, 16, dtype=np.float32), np.zeros(2, np.float32))
        network = ExportedNetwork((ExportedFlatten("flatten", (1, 4, 4)), *layers), head, (1, 4, 4))
        image = np.zeros((1, 1, 4, 4), np.uint8)
        image[0, 0, 0, 0] = 200
        try:
            certify = certifier(network)
        except ValueError as error:
            assert "nothing can be certified" in str(error) and not is_certified
            continue
        verdicts = certify.certify(torch.from_numpy(image), torch.tensor([0]))
        # Every layer is a multiple of the identity, so the boundary is where x_0 = x_1.
        assert 2 * Fraction(verdicts.radius[0]) ** 2 <= Fraction(200, 255) ** 2
        assert verdicts.radius_float[0] <= verdicts.radius[0]
        assert is_certified == (verdicts.radius[0] > 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e150])
def test_weights_that_are_not_finite_in_what_is_stored(bad: float) -> None:
    """1e150 is finite in a float64 model and infinite in the float32 that is certified."""
    model = build_model("liresnet", 3, 8, in_channels=1, depth=1, width=8).double()
    with torch.no_grad():
        next(model.trunk.parameters()).flatten()[3] = bad
    with pytest.raises(ValueError, match="not finite"):
        certifier(model)
