"""Statement F: the float64 program at points of the ball, against exact rationals, in any order."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from pipeline.certify.bounds import prove_bounds
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.layers.convex_potential import ExportedConvexPotential
from pipeline.layers.dense import ExportedDense
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.flatten import ExportedFlatten
from pipeline.layers.head import ExportedHead
from pipeline.layers.network import ExportedNetwork
from pipeline.layers.residual import ExportedResidual
from pipeline.layers.skew import ExportedSkewExponential
from tests.certify.kinds import ACTIVATIONS, mixed_network
from tests.certify.small import (
    exact_layer,
    exact_logits,
    fractions,
    labelled_images,
    random_images,
    small_network,
)
from tests.certify.test_rounding import ORDERS, reordered_certifier


def ball_points(images: np.ndarray, radii: np.ndarray, seed: int) -> np.ndarray:
    """A float64 point well inside of each ball, in a random direction: [B, C, H, W]."""
    rng = np.random.default_rng(seed)
    moves = rng.standard_normal(images.shape)
    moves /= np.linalg.norm(moves.reshape(len(moves), -1), axis=1).reshape(-1, 1, 1, 1)
    return images / 255 + 0.999 * radii.reshape(-1, 1, 1, 1) * moves


def exact_at(network: ExportedNetwork, point: np.ndarray) -> list[Fraction]:
    """The real function at a point of floats."""
    x = fractions(point)
    for layer in network.layers:
        x = exact_layer(layer, x)
    rows = zip(fractions(network.head.weight), fractions(network.head.bias), strict=True)
    return [row.dot(x) + bias for row, bias in rows]


def distance_squared(image: np.ndarray, point: np.ndarray) -> Fraction:
    pairs = zip(image.ravel().tolist(), fractions(point).ravel(), strict=True)
    return sum((Fraction(v, 255) - p) ** 2 for v, p in pairs)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_delta_in_the_ball_covers_every_order(order: str, scale: float) -> None:
    """Also far outside of the certified radius, where δ' must grow with the distance."""
    covers(small_network(4, scale), order, least=1e-4)


def covers(network: ExportedNetwork, order: str, least: float) -> None:
    """The program in that order is within δ' of the exact margins, once beyond `least` of it."""
    certify = LipschitzCertifier(network, prove_bounds(network))
    images, _ = random_images(3, 3)
    with torch.no_grad():
        logits, norm, error, ball = certify._forward(torch.from_numpy(images))
    predicted = logits.argmax(1)
    fixed, growing = ball.delta(certify._head_error, error, norm, predicted)
    program = reordered_certifier(network, order).network
    worst = 0.0
    for distance in (1e-3, 1.0, 1e4):
        points = ball_points(images, np.full(3, distance), seed=int(distance))
        x = torch.from_numpy(points)
        for layer in program.layers:
            x = layer.forward(x)
        computed = program.logits(x).numpy()
        for row, (image, point) in enumerate(zip(images, points, strict=True)):
            assert distance_squared(image, point) < Fraction(distance) ** 2
            exact, j = exact_at(network, point), predicted[row]
            for i in range(3):
                allowed = Fraction(fixed[row, i]) + Fraction(growing[row, i]) * Fraction(distance)
                computed_margin = Fraction(computed[row, j]) - Fraction(computed[row, i])
                off = abs(computed_margin - (exact[j] - exact[i]))
                assert off <= allowed
                worst = max(worst, float(off / allowed))
    assert worst > least  # a bound, and not an empty one


@pytest.mark.parametrize(
    ("function", "order"), list(zip(ACTIVATIONS, ORDERS, strict=True)), ids=lambda case: case
)
def test_delta_in_the_ball_covers_every_kind_of_layer(function: str, order: str) -> None:
    for scale in (1.0, 20.0):
        covers(mixed_network(function, 4, scale), order, least=1e-7)


@pytest.mark.parametrize("order", ORDERS)
def test_the_program_says_the_label_everywhere_it_is_certified_to(order: str) -> None:
    network = small_network(8)
    images, labels = labelled_images(network, 2, 12)
    certify = LipschitzCertifier(network, prove_bounds(network))
    verdicts = certify.certify(torch.from_numpy(images), torch.from_numpy(labels))
    rows = np.flatnonzero(verdicts.radius_float > 0)
    assert len(rows) > 5
    program = reordered_certifier(network, order).network
    points = ball_points(images[rows], verdicts.radius_float[rows], seed=1)
    x = torch.from_numpy(points)
    for layer in program.layers:
        x = layer.forward(x)
    computed = program.logits(x).numpy()
    for logits, label in zip(computed, labels[rows], strict=True):
        assert (np.delete(logits, label) < logits[label]).all()


def test_it_is_a_little_smaller_than_the_radius_of_the_exact_function() -> None:
    network = small_network(8)
    images, labels = labelled_images(network, 2, 60)
    certify = LipschitzCertifier(network, prove_bounds(network))
    verdicts = certify.certify(torch.from_numpy(images), torch.from_numpy(labels))
    some = verdicts.radius > 0
    assert (verdicts.radius_float[some] < verdicts.radius[some]).all()
    assert (verdicts.radius_float[some] > verdicts.radius[some] - 1e-12).all()
    assert not verdicts.radius_float[~some].any()


def test_the_radius_solves_the_inequality_of_the_theorem() -> None:
    """m − δ − δ'(s) ≥ s·K for every class in exact arithmetic; a thousandth more breaks it."""
    network = small_network(8)
    images, labels = labelled_images(network, 2, 20)
    certify = LipschitzCertifier(network, prove_bounds(network))
    with torch.no_grad():
        logits, norm, error, ball = certify._forward(torch.from_numpy(images))
    verdicts = certify.decide(logits, norm, error, labels, ball)
    head = certify._head_error
    margins = logits[np.arange(20), verdicts.predict][:, None] - logits
    delta = head.delta(error, norm, margins, verdicts.predict)
    fixed, growing = ball.delta(head, error, norm, verdicts.predict)
    checked = 0
    for row in np.flatnonzero(verdicts.radius_float > 0):
        for share, holds in ((1, True), (1.001, False)):
            reach = Fraction(verdicts.radius_float[row]) * Fraction(share)
            rooms = [
                Fraction(margins[row, i])
                - Fraction(delta[row, i])
                - Fraction(fixed[row, i])
                - reach * Fraction(growing[row, i])
                - reach * Fraction(certify.margin_lipschitz[verdicts.predict[row], i])
                for i in range(3)
                if i != verdicts.predict[row]
            ]
            assert (min(rooms) >= 0) == holds
            checked += 1
    assert checked > 10


def test_a_network_that_rounding_decides_is_certified_in_neither_sense() -> None:
    """Szász et al. 2025: exactly, the neuron is 1 everywhere near; one order of summation gives 0.

    (B·x₀ − B·x₁) + x₂ with x₀ = x₁: summed from the back, B swallows x₂.
    """
    weight = np.zeros((2, 16), np.float32)
    weight[0, :3] = [1e20, -1e20, 1.0]
    weight[1, 3] = 0.5
    network = ExportedNetwork(
        (
            ExportedFlatten("flatten", (1, 4, 4)),
            ExportedDense("dense", (16,), weight, np.zeros(2, np.float32)),
        ),
        ExportedHead(np.eye(2, dtype=np.float32), np.zeros(2, np.float32)),
        (1, 4, 4),
    )
    image = np.full((1, 1, 4, 4), 255, np.uint8)
    exact = exact_logits(network, image[0])
    assert exact[0] - exact[1] == Fraction(1, 2)  # the exact function says class 0
    said = set()
    for order in ORDERS:
        program = reordered_certifier(network, order).network
        x = torch.from_numpy(image / 255)
        for layer in program.layers:
            x = layer.forward(x)
        said.add(int(program.logits(x).argmax()))
    assert said == {0, 1}  # programs disagree
    certify = LipschitzCertifier(network, prove_bounds(network))
    verdicts = certify.certify(torch.from_numpy(image), torch.tensor([0]))
    assert verdicts.radius[0] == 0 and verdicts.radius_float[0] == 0


def test_where_the_exact_function_is_certified_and_the_program_is_not() -> None:
    """Every row equal but for the bias: R holds everywhere, F only where nothing swallows it."""
    weight = np.ones((2, 4), np.float32)
    head = ExportedHead(weight, np.array([1.0, 0.0], np.float32))
    network = ExportedNetwork((ExportedFlatten("flatten", (1, 2, 2)),), head, (1, 2, 2))
    certify = LipschitzCertifier(network, prove_bounds(network))
    image = torch.full((1, 1, 2, 2), 7, dtype=torch.uint8)
    verdicts = certify.certify(image, torch.tensor([0]))
    assert verdicts.radius[0] == math.inf
    assert 1e10 < verdicts.radius_float[0] < 1e17
    far = torch.full((1, 1, 2, 2), 1e17, dtype=torch.float64)
    logits = network.logits(network.trunk(far))[0]
    assert logits[0] == logits[1]  # the program ties where the exact function does not


def test_nothing_is_certified_where_the_ball_may_overflow() -> None:
    network = small_network(0)
    certify = LipschitzCertifier(network, prove_bounds(network))
    images, labels = labelled_images(network, 0, 4)
    with torch.no_grad():
        logits, norm, error, ball = certify._forward(torch.from_numpy(images))
    huge = replace(ball, peak_fixed=norm + 1e301)
    assert not certify.decide(logits, norm, error, labels, huge).radius_float.any()
    steep = replace(ball, peak_growing=0 * norm + 1e300)
    inner = certify.decide(logits, norm, error, labels, steep).radius_float
    assert (inner <= 2.0**990 / 1e300).all() and inner.any()


def test_subnormal_and_flushed_products_are_charged() -> None:
    """Weights of 1e-30 in four layers: products leave the normal range, δ' is not zero."""
    layers = [ExportedFlatten("flatten", (1, 4, 4))]
    layers += [
        ExportedDense(
            f"dense{n}", (16,), np.full((16, 16), 1e-38, np.float32), np.zeros(16, np.float32)
        )
        for n in range(9)
    ]
    head = ExportedHead(np.eye(2, 16, dtype=np.float32), np.zeros(2, np.float32))
    network = ExportedNetwork(tuple(layers), head, (1, 4, 4))
    certify = LipschitzCertifier(network, prove_bounds(network))
    images = random_images(0, 2)[0]
    with torch.no_grad():
        _, norm, error, ball = certify._forward(torch.from_numpy(images))
    fixed, _ = ball.delta(certify._head_error, error, norm, np.zeros(2, np.int64))
    assert (fixed > 2.0**-1000).all()
    verdicts = certify.certify(torch.from_numpy(images), torch.tensor([0, 0]))
    assert not verdicts.radius.any() and not verdicts.radius_float.any()


def hiding(kind: str) -> ExportedLayer:
    """A layer that holds numbers far larger than what it gives."""
    shape, huge = (2, 1, 1), np.float32(2.0**120)
    nothing = np.zeros((2, 2, 1, 1), np.float32)
    if kind == "residual":
        first = nothing.copy()
        first[0, 0] = huge
        biases = np.zeros(2, np.float32), np.zeros(2, np.float32)
        return ExportedResidual("layer", shape, (first, nothing), biases)
    if kind == "skew":
        kernel = nothing.copy()
        kernel[0, 1], kernel[1, 0] = huge, -huge
        return ExportedSkewExponential("layer", shape, kernel, np.zeros(2, np.float32), 1)
    weight, step = nothing[:1].copy(), np.array([2.0**-140], np.float32)
    weight[0, 0] = huge
    return ExportedConvexPotential("layer", shape, weight, np.zeros(1, np.float32), step)


@pytest.mark.parametrize("kind", ["residual", "potential", "skew"])
def test_numbers_inside_a_layer_count_for_overflow(kind: str) -> None:
    """They grow by 2^120 for each unit of distance, whatever the layer makes of them."""
    head = ExportedHead(np.zeros((2, 2), np.float32), np.array([1, 0], np.float32))
    layers = (hiding(kind), ExportedFlatten("flat", (2, 1, 1)))
    network = ExportedNetwork(layers, head, (2, 1, 1))
    certify = LipschitzCertifier(network, prove_bounds(network))
    ball = certify._forward(torch.ones(1, 2, 1, 1, dtype=torch.uint8))[3]
    assert 2.0**120 <= ball.peak_growing[0] < 2.0**260
    with torch.no_grad():
        x = torch.full((1, 2, 1, 1), 2.0**1000, dtype=torch.float64)  # 2^1120 is too large
        for layer in network.layers:
            x = layer.forward(x)
    assert not torch.isfinite(network.logits(x)).all()
