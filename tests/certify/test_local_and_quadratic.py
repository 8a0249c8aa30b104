"""Local curvature and the quadratic ReLU certificate: true bounds, better than coarser ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.certify.curvature_local import LocalCurvature, bend_range
from pipeline.certify.relu_quadratic import ReluQuadratic, parabolas
from pipeline.certify.rounding import input_error, norm_upper
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.plain import BEND
from pipeline.models import build_model
from tests.certify.test_curvature import CLASSES, SIDE, certifier_of, images_of, margin, network_of


def relu_network(seed: int = 0) -> ExportedNetwork:
    torch.manual_seed(seed)
    model = build_model("mlp", CLASSES, SIDE, 1, hidden=[9], activation="relu", curvature=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.export()


def bent_network(function: str) -> ExportedNetwork:
    """Curved enough that a ball's bound of σ'' is below the global one."""
    return network_of(function, scale=24)


def assert_nobody_crosses(
    network: ExportedNetwork, center: torch.Tensor, first, second, radius
) -> None:
    """Projected gradient descent of each margin in its ball, from the centre and random points."""
    generator = torch.Generator().manual_seed(0)
    for row in range(len(center)):
        if radius[row] <= 0:
            continue
        for start in range(3):
            x = center[row : row + 1].clone()
            if start:
                x = x + radius[row] * torch.randn(x.shape, generator=generator).double() / SIDE
            for _ in range(30):
                away = x.detach() - center[row]
                x = center[row] + away * min(1.0, radius[row] / max(float(away.norm()), 1e-12))
                x.requires_grad_()
                value = margin(network, x, int(first[row]), int(second[row]))
                assert float(value.detach()) > 0
                (slope,) = torch.autograd.grad(value.sum(), x)
                x = x.detach() - 0.3 * radius[row] * slope / slope.norm().clamp(min=1e-12)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.sampled_from(["softplus", "sigmoid", "tanh"]),
    st.floats(-6, 6),
    st.one_of(st.just(0.0), st.floats(1e-9, 12)),
)
def test_second_derivatives_are_in_their_range(function: str, least: float, width: float) -> None:
    ends = torch.tensor([[least], [least + width]], dtype=torch.float64)
    low, high = bend_range(function, *ends)
    bends = BEND[function](torch.linspace(least, least + width, 300, dtype=torch.float64))
    assert (bends >= low).all() and (bends <= high).all()
    # tight: the grid comes near both ends
    coarse = width / 300
    assert bends.min() - low <= coarse + 1e-10 and high - bends.max() <= coarse + 1e-10


@pytest.mark.parametrize("function", ["softplus", "sigmoid", "tanh"])
def test_local_radii_are_true_and_larger(function: str) -> None:
    network = bent_network(function)
    certifier = certifier_of(network)
    images, labels = images_of(network, 10)
    center = images.double().flatten(1) / 255
    first = labels.numpy()
    second = (first + 1) % CLASSES
    rows = np.arange(len(first))
    known = certifier.pair_radii(center, rows, first, second, 16)
    assert (known > 0).all()
    local = LocalCurvature(certifier)
    radius, concave = local.radii(center, first, second, known)
    assert (radius >= known).all() and (radius > known * 1.01).any()
    assert (concave <= certifier.curvature[first, second] * (1 + 1e-6)).all()
    assert_nobody_crosses(network, center, first, second, radius)
    printed = local.printed_radii(center, first, second, known)
    assert (printed >= known).all()
    for share in (0.01, 0.3):  # in a ball too small for the point that would prove most
        ball = share * known
        x, found = local._searched(center, first, second, ball)
        away = (x - center.float()).norm(dim=1).numpy()
        assert (away <= ball * (1 + 1e-4)).all() and (away > ball * 0.99).any()
        assert (found >= ball * 0.9).all(), "it proves the small ball all the same"
    # an exact count: the Hessian on the sphere of the ball is not below −C
    x = center + radius[0] * torch.nn.functional.normalize(torch.randn_like(center), dim=1)
    for row in range(len(x)):
        where = center[row] + (x[row] - center[row]) * radius[row] / radius[0]
        hessian = torch.autograd.functional.hessian(
            lambda p, row=row: margin(network, p[None], int(first[row]), int(second[row])).sum(),
            where,
        )
        assert torch.linalg.eigvalsh(hessian)[0] >= -concave[row] - 1e-9


def test_deeper_networks_have_no_local_bound() -> None:
    with pytest.raises(ValueError, match="2 hidden layers"):
        LocalCurvature(certifier_of(network_of("tanh", (6, 4))))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.floats(-5, 5), st.floats(1e-6, 8))
def test_parabolas_enclose_relu(least: float, width: float) -> None:
    ends = torch.tensor([[least], [least + width]], dtype=torch.float64)
    z = torch.linspace(least, least + width, 200, dtype=torch.float64)
    relu = z.clamp(min=0)
    for below, sign in ((True, 1), (False, -1)):
        a, b, c = parabolas(*ends, torch.tensor([below]))
        assert (sign * (relu - (a * z * z + b * z + c)) >= -1e-9).all()


def test_quadratic_radii_are_true_and_above_crowns() -> None:
    from pipeline.certify.studies.subject import plain_network
    from pipeline.lipschitz.crown import crown_radius

    for seed in range(2):
        network = relu_network(seed)
        images, labels = images_of(network, 10)
        center = images.double().flatten(1) / 255
        first = labels.numpy()
        second = (first + 1) % CLASSES
        radius = ReluQuadratic(network).radii(center, first, second)
        assert (radius > 0).mean() > 0.7
        assert_nobody_crosses(network, center, first, second, radius)
        crown = crown_radius(
            plain_network(network), center, labels, torch.from_numpy(second)
        ).numpy()
        assert radius.mean() > crown.mean()
        wrong = ReluQuadratic(network).radii(center, second, first)
        assert (wrong == 0).all()


def test_the_minorant_is_below_the_margin_in_its_ball() -> None:
    network = relu_network(3)
    images, labels = images_of(network, 5)
    center = images.double().flatten(1) / 255
    first, second = labels.numpy(), (labels.numpy() + 2) % CLASSES
    quadratic = ReluQuadratic(network)
    radius = np.array([1e-3, 0.1, 0.5, 1.0, 3.0])
    minorant = quadratic._minorant(center, first, second, radius)
    concave = [quadratic._proved_concavity(row) for row in minorant.square.numpy()]
    for row in range(5):
        weight = quadratic._weight
        hessian = 2 * weight.T @ (minorant.square[row][:, None] * weight)
        least = float(torch.linalg.eigvalsh(hessian)[0])
        assert -least <= concave[row] <= max(-least, 0) * 1.01 + 1e-6
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        y = torch.randn(center.shape, generator=generator, dtype=torch.float64)
        y = y * (torch.from_numpy(radius)[:, None] / y.norm(dim=1, keepdim=True))
        for row in range(5):
            here = (center[row] + y[row])[None]
            below = float(quadratic._evaluate(minorant, y).value[row])
            assert below <= float(margin(network, here, int(first[row]), int(second[row]))) + 1e-12


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="one hidden dense layer with relu"):
        ReluQuadratic(network_of("softplus", (6,)))


def test_the_ball_is_about_the_exact_pixel() -> None:
    network = relu_network(0)
    images, labels = images_of(network, 2)
    center = images.double().flatten(1) / 255
    quadratic = ReluQuadratic(network)
    second = (labels.numpy() + 1) % CLASSES
    assert (quadratic.radii(center, labels.numpy(), second) < 5).all()
    assert (input_error(norm_upper(center)) > 0).all()
