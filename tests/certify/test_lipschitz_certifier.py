"""What the certifier says of single images: ties, NaN, constants, refusals, attacks."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.certify import certifier
from pipeline.certify.arithmetic import SLICE
from pipeline.certify.ball import BallError
from pipeline.certify.bounds import prove_bounds
from pipeline.certify.lipschitz_certifier import PIXELS, LipschitzCertifier
from pipeline.lipschitz.bound import NormBound
from tests.certify.small import labelled_images, linear_network, random_images, small_network


def decide(logits: list[list[float]], labels: list[int], classes: int = 3):
    """Verdicts from given logits, with rows of the head that are 1 apart or so."""
    weight = np.eye(classes, 4)
    network = linear_network(weight, np.zeros(classes), (1, 2, 2))
    certify = LipschitzCertifier(network, prove_bounds(network))
    count = len(labels)
    ball = BallError.at_input(count)
    return certify.decide(np.array(logits), np.ones(count), np.zeros(count), np.array(labels), ball)


def test_ties_nan_and_infinity_are_never_certified() -> None:
    nan, inf = math.nan, math.inf
    verdicts = decide(
        [
            [1.0, 1.0, 0.0],  # tied with the first of two
            [0.0, 1.0, 1.0],
            [2.0, 2.0, 2.0],
            [0.0, 0.0, 0.0],
            [nan, 1.0, 0.0],
            [3.0, nan, 0.0],
            [nan, nan, nan],
            [inf, 1.0, 0.0],
            [3.0, -inf, 0.0],
            [inf, inf, 0.0],
        ],
        [0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    )
    assert not verdicts.radius.any() and not verdicts.correct.any()
    assert (verdicts.binding != verdicts.predict).all()
    assert np.isnan(verdicts.margin).tolist() == [False] * 4 + [True] * 6


def test_one_ulp_above_a_tie_is_correct_but_not_certified() -> None:
    verdicts = decide([[math.nextafter(1.0, 2.0), 1.0, 0.0]], [0])
    assert verdicts.correct[0] and verdicts.radius[0] == 0 and verdicts.binding[0] == 1


def test_a_misclassified_image_has_radius_zero_and_evidence() -> None:
    verdicts = decide([[0.0, 5.0, 4.0]], [0])
    assert verdicts.predict[0] == 1 and verdicts.binding[0] == 2
    assert verdicts.margin[0] == 1.0 and not verdicts.correct[0] and verdicts.radius[0] == 0


def test_the_binding_class_minimises_the_radius_not_the_margin() -> None:
    # Class 1 is nearer in logits, class 2 in radius: its row is five times as far away.
    network = linear_network(np.array([[0.0], [1.0], [5.0]]), np.zeros(3), (1, 1, 1))
    certify = LipschitzCertifier(network, prove_bounds(network))
    one = np.ones(1)
    ball = BallError.at_input(1)
    verdicts = certify.decide(np.array([[3.0, 1.0, 0.0]]), one, 0 * one, np.array([0]), ball)
    assert verdicts.binding[0] == 2
    assert verdicts.radius[0] == pytest.approx(3 / 5, rel=1e-6)


def test_all_pairs_are_examined() -> None:
    network = small_network(1, classes=7)
    images, labels = labelled_images(network, 0, 40)
    certify = certifier(network)
    verdicts = certify.certify(torch.from_numpy(images), torch.from_numpy(labels))
    x = PIXELS[torch.from_numpy(images).long()]
    logits = network.logits(network.trunk(x)).numpy()
    for row in np.flatnonzero(verdicts.correct):
        j = verdicts.predict[row]
        radii = [
            (logits[row, j] - logits[row, i]) / certify.margin_lipschitz[j, i]
            for i in range(7)
            if i != j
        ]
        assert verdicts.radius[row] == pytest.approx(min(radii), rel=1e-6)
        assert verdicts.radius[row] <= min(radii)


def test_equal_rows_make_a_constant_margin() -> None:
    weight = np.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [1.0, 0, 0, 0]])
    image = torch.full((1, 1, 2, 2), 77, dtype=torch.uint8)
    label = torch.tensor([0])
    apart = certifier(linear_network(weight, np.array([2.0, 1.0, 0.0]), (1, 2, 2)))
    assert apart.certify(image, label).radius[0] == math.inf
    assert apart.certify(image, label).lipschitz[0] == 0
    tied = certifier(linear_network(weight, np.zeros(3), (1, 2, 2)))
    assert tied.certify(image, label).radius[0] == 0
    assert not tied.certify(image, label).correct[0]


def test_a_trunk_of_zeros_decides_by_the_biases() -> None:
    network = small_network(0)
    network.layers[1].weight[:] = 0
    certify = certifier(network)
    assert certify.lipschitz_bound < 1e-300
    images = torch.from_numpy(random_images(0, 5)[0])
    predicted = certify.certify(images, torch.zeros(5, dtype=torch.int64)).predict
    verdicts = certify.certify(images, torch.from_numpy(predicted))
    assert (verdicts.radius > 1e280).all()


def test_a_linear_network_has_the_exact_distance_to_the_boundary() -> None:
    rng = np.random.default_rng(3)
    weight, bias = rng.standard_normal((3, 4)), rng.standard_normal(3)
    network = linear_network(weight, bias, (1, 2, 2))
    images = torch.from_numpy(rng.integers(0, 256, (50, 1, 2, 2), dtype=np.uint8))
    certify = certifier(network)
    predicted = certify.certify(images, torch.zeros(50, dtype=torch.int64)).predict
    verdicts = certify.certify(images, torch.from_numpy(predicted))
    w, b = network.head.weight.astype(float), network.head.bias.astype(float)
    for image, j, radius in zip(images, predicted, verdicts.radius, strict=True):
        x = np.array([Fraction(int(v), 255) for v in image.flatten()], dtype=float)
        distances = [
            ((w[j] - w[i]) @ x + b[j] - b[i]) / np.linalg.norm(w[j] - w[i])
            for i in range(3)
            if i != j
        ]
        assert radius <= min(distances) * (1 + 1e-12)
        assert radius == pytest.approx(min(distances), rel=1e-9)


def test_a_batch_says_the_same_as_its_slices() -> None:
    network = small_network(5)
    images, labels = labelled_images(network, 1, SLICE + 9)
    whole = certifier(network).certify(torch.from_numpy(images), torch.from_numpy(labels))
    tail = certifier(network).certify(
        torch.from_numpy(images[SLICE:]), torch.from_numpy(labels[SLICE:])
    )
    assert whole.radius[SLICE:].tolist() == tail.radius.tolist()


def test_pixels_are_correctly_rounded() -> None:
    for value, pixel in enumerate(PIXELS.tolist()):
        assert abs(Fraction(pixel) - Fraction(value, 255)) <= Fraction(pixel) * Fraction(2) ** -53


IMAGES, LABELS = (torch.from_numpy(array) for array in random_images(0, 4))


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (IMAGES.float() / 255, LABELS, "float32 [4, 1, 4, 4], the network takes uint8 [B, 1, 4, 4"),
        (IMAGES.repeat(1, 3, 1, 1), LABELS, "uint8 [4, 3, 4, 4]"),
        (IMAGES[:, :, :3, :3], LABELS, "uint8 [4, 1, 3, 3]"),
        (IMAGES, LABELS + 3, "outside the network's 3 classes"),
        (IMAGES, LABELS - 9, "outside the network's 3 classes"),
        (IMAGES, LABELS[:2], "4 images need as many integer labels"),
        (IMAGES, LABELS[:, None], "4 images need as many integer labels, not int64 [4, 1]"),
        (IMAGES, LABELS.float(), "integer labels, not float32"),
    ],
)
def test_wrong_input_is_refused(images: torch.Tensor, labels: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError) as error:
        certifier(small_network(0)).certify(images, labels)
    assert words in str(error.value)


def test_a_module_without_export_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear cannot be certified: it has no export"):
        certifier(nn.Linear(2, 2))


def test_weights_that_are_not_finite_are_refused() -> None:
    network = small_network(0)
    network.layers[1].bias[0] = np.nan
    with pytest.raises(ValueError, match=r"stem\.bias.*not finite"):
        certifier(network)


def test_a_bound_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network(0)
    monkeypatch.setattr(
        type(network.layers[1]), "norm_bound", lambda self: NormBound(math.inf, "none")
    )
    with pytest.raises(ValueError, match=r"'stem' \(conv2d\) has no finite norm bound"):
        certifier(network)


def test_bounds_whose_product_overflows_are_refused() -> None:
    network = small_network(0)
    with pytest.raises(ValueError, match="overflows"):
        LipschitzCertifier(network, [NormBound(1e100, "given")] * len(network.layers))


def test_bytes_as_labels_of_256_classes() -> None:
    """Compared as uint8 the number of classes would be 0, and every label outside."""
    images, labels = random_images(0, 4, 256)
    network = small_network(0, classes=256)
    as_bytes = certifier(network).certify(
        torch.from_numpy(images), torch.from_numpy(labels.astype(np.uint8))
    )
    assert np.array_equal(as_bytes.label, labels)
