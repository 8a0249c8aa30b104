"""Curvature radii: true for any point and multiplier, and nothing inside them is misclassified."""

import time
from fractions import Fraction

import numpy as np
import pytest
import torch

from pipeline.certify.ball import BallError
from pipeline.certify.curvature_certifier import (
    FEW,
    MANY,
    CurvatureCertifier,
    CurvatureReference,
)
from pipeline.certify.curvature_dual import (
    MarginFunction,
    dual_value,
    exact_radius,
    program_radius,
)
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.certify.methods import check_method, prove_margins
from pipeline.certify.stages import stages_of
from pipeline.layers.network import ExportedNetwork
from pipeline.layers.shift import ExportedShift
from pipeline.lipschitz.curvature_bound import CurvatureBounds
from pipeline.models import build_model
from tests.certify.small import exact_layer, fractions, small_network
from tests.lipschitz.printed_algorithms import algorithm_1

SIDE, CLASSES = 4, 3


def network_of(
    function: str = "softplus", hidden=(6,), seed: int = 0, scale: float = 2.5
) -> ExportedNetwork:
    """A fully connected network steep enough to have boundaries among its inputs."""
    torch.manual_seed(seed)
    model = build_model("mlp", CLASSES, SIDE, 1, hidden=list(hidden), activation=function)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model.export()


def certifier_of(network: ExportedNetwork) -> CurvatureCertifier:
    bounds = [layer.norm_bound() for layer in network.layers]
    return CurvatureCertifier(network, bounds, prove_margins("curvature", network, bounds))


def images_of(network: ExportedNetwork, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    return images, network.logits(network.trunk(images.double() / 255)).argmax(1)


def margin(network: ExportedNetwork, x: torch.Tensor, j: int, i: int) -> torch.Tensor:
    logits = network.logits(network.trunk(x.view(-1, 1, SIDE, SIDE)))
    return logits[:, j] - logits[:, i]


@pytest.mark.parametrize(
    ("function", "hidden"), [("softplus", (6,)), ("sigmoid", (6,)), ("tanh", (6, 4))]
)
def test_no_attack_succeeds_inside_and_one_does_not_far_outside(function, hidden) -> None:
    network = network_of(function, hidden)
    images, labels = images_of(network, 12)
    certifier = certifier_of(network)
    verdicts = certifier.certify(images, labels)
    assert verdicts.correct.all() and (verdicts.radius > 0).mean() > 0.7
    x0 = images.double().flatten(1) / 255
    for row in np.flatnonzero(verdicts.radius > 0):
        j, radius = int(labels[row]), float(verdicts.radius[row])
        for i in range(CLASSES):
            if i == j:
                continue
            # projected gradient descent of the margin from the centre
            x = x0[row : row + 1].clone()
            for _ in range(40):
                x.requires_grad_()
                (slope,) = torch.autograd.grad(margin(network, x, j, i).sum(), x)
                x = x.detach() - 0.3 * radius * slope / slope.norm()
                away = x - x0[row]
                x = x0[row] + away * min(1.0, radius / float(away.norm()))
            assert float(margin(network, x, j, i)) > 0
    assert (verdicts.binding != labels.numpy()).all()


def test_any_point_and_any_multiplier_give_a_true_radius() -> None:
    """The bound at random x̃ and η is never above the distance of a point that is across."""
    network = network_of()
    certifier = certifier_of(network)
    images, labels = images_of(network, 6)
    x0 = images.double().flatten(1) / 255
    j, i = int(labels[0]), (int(labels[0]) + 1) % CLASSES
    concave = certifier.curvature[j, i]
    center = x0[:1]
    across = center.clone()
    for _ in range(400):  # a point where class i is ahead: its distance is above every true radius
        across.requires_grad_()
        value = margin(network, across, j, i)
        if float(value.detach()) < 0:
            break
        (slope,) = torch.autograd.grad(value.sum(), across)
        across = across.detach() - 0.02 * slope / slope.norm()
    distance = float((across.detach() - center).norm())
    assert float(margin(network, across.detach(), j, i)) < 0
    random = np.random.default_rng(1)
    count = 200
    spread = 10.0 ** random.uniform(-6, 0.5, (count, 1))
    points = center + torch.from_numpy(spread * random.standard_normal((count, SIDE**2)))
    eta = random.uniform(-0.2, 1.4, count) / concave
    one, other = torch.full((count,), j), torch.full((count,), i)
    margins = certifier.exact.evaluate(points, one, other)
    values = dual_value(margins, points, center.expand(count, -1), eta, np.full(count, concave))
    found = exact_radius(values)
    assert (found <= distance).all() and (found[(eta < 0) | (eta * concave >= 1)] == 0).all()
    nothing = np.zeros((1, CLASSES))
    best, inner, _ = certifier.radii(center, np.array([j]), nothing, nothing)
    assert found.max() > 0 and best <= distance and inner == pytest.approx(best, rel=1e-11)


def test_a_margin_without_a_zero_and_without_curvature_has_a_radius() -> None:
    """There the search runs away, and what it brings back proves nothing in float64."""
    torch.manual_seed(0)
    model = build_model("mlp", 2, 2, 1, hidden=[2], activation="softplus")
    dense, head = (layer for layer in model.modules() if hasattr(layer, "weight"))
    with torch.no_grad():
        dense.weight.copy_(torch.tensor([[0.5, 0.3, -0.2, 0.4], [0.3, -0.3, 0.2, 0.1]]))
        dense.bias.copy_(torch.tensor([-0.1, 0.2]))
        head.weight.copy_(torch.tensor([[0.6, 0.5], [0.5, 0.4]]))
        head.bias.copy_(torch.tensor([0.3, 0.0]))
    network = model.export()
    certifier = certifier_of(network)
    assert 0 < certifier.curvature[0, 1] < 1e-30
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 2, 2), dtype=np.uint8)
    labels = torch.zeros(4, dtype=torch.int64)
    verdicts = certifier.certify(torch.from_numpy(pixels), labels)
    bounds = [layer.norm_bound() for layer in network.layers]
    product = LipschitzCertifier(network, bounds).certify(torch.from_numpy(pixels), labels)
    assert (verdicts.radius > product.radius).all() and (product.radius > 1).all()
    assert (verdicts.radius_float > product.radius_float).all()


@pytest.mark.parametrize("function", ["softplus", "sigmoid", "tanh"])
def test_few_steps_prove_nearly_what_many_do(function: str) -> None:
    """Of strongly bent networks: a search that swings to and fro had proved nothing there."""
    certifier = certifier_of(network_of(function, scale=8))
    images, labels = images_of(certifier.network, 40)
    first, second = labels.numpy(), (labels.numpy() + 1) % CLASSES
    pairs = images.double().flatten(1) / 255, np.arange(len(first)), first, second
    few, many, most = (certifier.pair_radii(*pairs, steps) for steps in (FEW, MANY, 300))
    assert (few > 0.9 * most).all() and (many > 0.99 * most).all()


def test_the_radius_of_the_program_is_the_root_of_its_inequality() -> None:
    """½S² + ηβS + ηα ≤ d in exact arithmetic, and not for a slightly larger S."""
    random = np.random.default_rng(3)
    count = 400
    value, eta = (10.0 ** random.uniform(low, 2, count) for low in (-12, -6))
    growing = 10.0 ** random.uniform(-14, 2, count)
    fixed = value / eta * random.choice([0, 1e-12, 0.3, 0.999, 1.001], count)
    found = program_radius(value, eta, fixed, growing)
    none = eta * fixed > value
    assert 40 < none.sum() < 120 and not found[none].any() and (found[~none] > 0).all()
    for row in np.flatnonzero(~none):
        d, e, a, b = (Fraction(float(x[row])) for x in (value, eta, fixed, growing))

        def excess(radius: Fraction, d=d, e=e, a=a, b=b) -> Fraction:
            return radius * radius / 2 + e * b * radius + e * a - d

        radius = Fraction(float(found[row]))
        assert excess(radius) <= 0 < excess(radius * (1 + Fraction(1, 10**7)))
    assert not program_radius(np.ones(2), np.ones(2), np.array([np.inf, 0]), np.array([0, np.inf]))[
        [0, 1]
    ].any()


def test_margins_exceed_the_rounding_everywhere_in_the_program_s_radius() -> None:
    """With a rounding as large as margins are, so that every term of the inequality matters."""
    network = network_of("softplus", (6,), seed=1)
    certifier = certifier_of(network)
    images, labels = images_of(network, 8)
    x0, predict = images.double().flatten(1) / 255, labels.numpy()
    fixed, growing = np.full((8, CLASSES), 0.02), np.full((8, CLASSES), 0.05)
    plain, inner, _ = certifier.radii(x0, predict, fixed, growing)
    some = np.flatnonzero(inner > 0)
    assert len(some) > 4 and (inner[some] < plain[some]).all()
    for row in some:
        j, radius = int(predict[row]), float(inner[row])
        for i in set(range(CLASSES)) - {j}:
            x = x0[row : row + 1].clone()
            for _ in range(30):  # descent of margin − 0.05·t on the ball, from within
                x.requires_grad_()
                (slope,) = torch.autograd.grad(margin(network, x, j, i).sum(), x)
                x = x.detach() - 0.3 * radius * slope / slope.norm()
                away = x - x0[row]
                x = x0[row] + away * min(1.0, radius / float(away.norm()))
                distance = float((x - x0[row]).norm())
                assert float(margin(network, x, j, i)) > 0.02 + 0.05 * distance


def test_statement_f_costs_next_to_nothing_and_stops_before_an_overflow() -> None:
    network = network_of("softplus", (8,), seed=5)
    images, labels = images_of(network, 30)
    certifier = certifier_of(network)
    verdicts = certifier.certify(images, labels)
    some = verdicts.radius > 0.01
    assert some.sum() > 10
    assert (verdicts.radius_float <= verdicts.radius).all()
    assert (verdicts.radius_float[some] > verdicts.radius[some] * (1 - 1e-9)).all()
    product = LipschitzCertifier(network, certifier.bounds).certify(images, labels)
    assert (verdicts.radius_float[some] > product.radius_float[some] * 1.05).any()
    some_room = np.where(np.arange(30) % 2, 0.005, -np.inf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BallError, "reach", lambda *_: some_room)
        cut = certifier.certify(images, labels).radius_float
    assert (cut[some] == np.where(some_room > 0, 0.005, 0)[some]).all()


def test_values_and_gradients_are_within_their_errors() -> None:
    """Against 60 digits: the same network by mpmath, forwards and backwards."""
    import mpmath

    network = network_of("softplus", (5, 4), seed=3)
    bounds = [layer.norm_bound() for layer in network.layers]
    exact = MarginFunction(network, stages_of(network), bounds)
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((3, SIDE**2)) * 3)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    found = exact.evaluate(x, first, second)
    with mpmath.workdps(60):
        weights = [
            (mpmath.matrix(layer.weight.tolist()), mpmath.matrix(layer.bias.tolist()))
            for layer in network.layers
            if hasattr(layer, "weight")
        ]
        for row in range(3):
            a, slopes = mpmath.matrix(x[row].tolist()), []
            for weight, bias in weights:
                z = weight * a + bias
                a = z.apply(lambda v: mpmath.log1p(mpmath.exp(v)))
                slopes.append(z.apply(lambda v: 1 / (1 + mpmath.exp(-v))))
            rows = mpmath.matrix(network.head.weight.tolist())
            j, i = int(first[row]), int(second[row])
            v = (rows[j, :] - rows[i, :]).T
            value = (v.T * a)[0]
            value += mpmath.mpf(float(network.head.bias[j])) - float(network.head.bias[i])
            for (weight, _), slope in zip(reversed(weights), reversed(slopes), strict=True):
                v = weight.T * mpmath.matrix([p * q for p, q in zip(v, slope, strict=True)])
            assert abs(value - float(found.value[row])) <= found.value_error[row] < 1e-10
            off = mpmath.norm(v - mpmath.matrix(found.gradient[row].tolist()))
            assert off <= found.gradient_error[row] < 1e-10


def test_the_runner_up_reading_is_never_below_the_certificate() -> None:
    network = network_of("softplus", (8,), seed=5)
    images, labels = images_of(network, 40)
    certifier = certifier_of(network)
    proved = certifier.certify(images, labels).radius
    reference = CurvatureReference(network, certifier.curvature)
    usual = reference.radii(reference.scores(images, labels), 1.0)
    assert (usual >= proved - 1e-4).all() and (usual > proved + 1e-3).any()


def test_a_wrong_label_has_no_radius() -> None:
    network = network_of()
    images, labels = images_of(network, 10)
    verdicts = certifier_of(network).certify(images, (labels + 1) % CLASSES)
    assert not verdicts.correct.any() and (verdicts.radius == 0).all()


def test_networks_that_the_methods_are_not_for_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of product, liplt, curvature"):
        check_method("curved", network_of())
    torch.manual_seed(0)
    relu = build_model("mlp", CLASSES, SIDE, 1, hidden=[4], activation="relu", curvature=False)
    check_method("liplt", relu.export())
    with pytest.raises(ValueError, match="softplus, sigmoid or tanh; take liplt or product"):
        check_method("curvature", relu.export())
    with pytest.raises(
        ValueError, match=r"certification\.method liplt: layer .*minmax.*; take product"
    ):
        check_method("liplt", small_network(0))


def test_a_shift_is_refused_where_the_network_is_evaluated_without_it() -> None:
    """Its radii would be those of another function."""
    plain = network_of()
    shift = ExportedShift("shift", plain.input_shape, 0.5)
    shifted = ExportedNetwork((shift, *plain.layers), plain.head, plain.input_shape)
    check_method("liplt", shifted)
    with pytest.raises(ValueError, match=r"layer 'shift' \(shift\) stands where"):
        check_method("curvature", shifted)
    with pytest.raises(ValueError, match="layer 'shift'"):
        certifier_of(shifted)


def test_relu_networks_are_evaluated_exactly_within_delta() -> None:
    """The activation layer in statement R's own recursion, against rational arithmetic."""
    torch.manual_seed(1)
    network = build_model(
        "mlp", CLASSES, SIDE, 1, hidden=[5], activation="relu", curvature=False
    ).export()
    image = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE), dtype=np.uint8)
    flatten, dense, _ = network.layers
    x = np.array([Fraction(int(v), 255) for v in image.ravel()]).reshape(image.shape)
    hidden = exact_layer(dense, exact_layer(flatten, x))
    hidden = np.array([max(v, Fraction(0)) for v in hidden])
    logits = fractions(network.head.weight) @ hidden + fractions(network.head.bias)
    bounds = [layer.norm_bound() for layer in network.layers]
    j = int(np.argmax([float(v) for v in logits]))
    verdicts = LipschitzCertifier(network, bounds).certify(
        torch.from_numpy(image)[None], torch.tensor([j])
    )
    i = int(verdicts.binding[0])
    gap = abs(Fraction(float(verdicts.margin[0])) - (logits[j] - logits[i]))
    assert gap <= Fraction(float(verdicts.delta[0]))


@pytest.mark.long
def test_a_batch_is_twenty_times_faster_than_a_loop_over_images() -> None:
    """The whole certificate, all classes, against Algorithm 1 for one image and class at a time."""
    torch.manual_seed(0)
    network = build_model("mlp", 10, 28, 1, hidden=[1024]).export()
    bounds = [layer.norm_bound() for layer in network.layers]
    claims = CurvatureBounds(np.full((10, 10), 0.5))  # the claim does not matter here
    certifier = CurvatureCertifier(network, bounds, claims)
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (64, 1, 28, 28), dtype=np.uint8))
    labels = network.logits(network.trunk(images.double() / 255)).argmax(1)
    certifier.certify(images[:4], labels[:4])  # what the first call costs once
    began = time.perf_counter()
    certifier.certify(images, labels)
    batched = (time.perf_counter() - began) / len(images)
    x0, side = images[:1].float().flatten(1) / 255, torch.tensor([0.5])
    began = time.perf_counter()
    for other in range(10):
        if other != int(labels[0]):
            algorithm_1(certifier.fast.margin(labels[:1], torch.tensor([other])), x0, side, side)
    loop = time.perf_counter() - began
    print(f"{1 / batched:.1f} and {1 / loop:.2f} images a second: {loop / batched:.0f} times")
    assert loop > 20 * batched
