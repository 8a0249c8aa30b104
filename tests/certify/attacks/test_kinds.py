"""The whole battery against networks of other layers, and against LipLT and curvature."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from pipeline.certify.arithmetic import single_threaded_mathematics
from pipeline.certify.attacks.assault import Settings
from pipeline.certify.attacks.battery import battery
from pipeline.certify.attacks.report import refuted
from pipeline.certify.attacks.slopes import steepest
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.certify.methods import build_certifier, check_method, prove_margins
from pipeline.layers.network import ExportedNetwork
from pipeline.models import build_model
from pipeline.types import Epsilon
from tests.certify.kinds import mixed_network
from tests.verify.test_margins import network_of

QUICK = Settings(steps=12, restarts=2, batch=32, slope_steps=40, boxed=False)
COUNT = 24


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with single_threaded_mathematics():
        yield


def built(name: str) -> ExportedNetwork:
    """An untrained network of the models, steep enough to have boundaries among its inputs."""
    torch.manual_seed(0)
    if name == "cpl":
        model = build_model("cpl", 3, 8, 1, depth=2, channels=6, dense_depth=2, features=8)
        return model.export()
    model = build_model("resnet", 3, 8, 1, depth=2, width=4, features=8)
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "beta"):
                layer.beta.fill_(0.7)
    return model.export()


CASES = {
    "cpl": ("product", lambda: built("cpl")),
    "residual": ("product", lambda: built("resnet")),
    "every kind, tanh": ("product", lambda: mixed_network("tanh", 2)),
    "every kind, leaky": ("product", lambda: mixed_network("leaky_relu", 9)),
    "liplt, relu": ("liplt", lambda: network_of("liplt", "relu")),
    "liplt, sigmoid": ("liplt", lambda: network_of("liplt", "sigmoid")),
    "curvature, softplus": ("curvature", lambda: network_of("curvature", "softplus")),
    "curvature, tanh": ("curvature", lambda: network_of("curvature", "tanh")),
}


def prepared(name: str) -> tuple[ExportedNetwork, LipschitzCertifier, torch.Tensor, torch.Tensor]:
    method, make = CASES[name]
    network = make()
    check_method(method, network)
    bounds = [layer.norm_bound() for layer in network.layers]
    claims = prove_margins(method, network, bounds)
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, *network.input_shape), np.uint8)
    images = torch.from_numpy(pixels)
    labels = network.logits(network.trunk(images.double() / 255)).argmax(1)
    one = build_certifier(method, network, bounds, claims, torch.device("cpu"))
    return network, one, images, labels


@pytest.mark.parametrize("name", CASES)
def test_no_certified_image_falls_and_false_radii_do(name: str) -> None:
    network, one, images, labels = prepared(name)
    verdicts = one.certify(images, labels)
    positive = verdicts.radius[verdicts.radius > 0]
    assert len(positive) > COUNT / 2
    epsilon = [Epsilon.parse(f"{np.median(positive):.6f}")]
    constants = [bound.value for bound in one.bounds]

    def attacked(factor: float) -> dict:
        result = battery(
            network, images, labels, verdicts.correct, verdicts.radius * factor, epsilon, [],
            constants, QUICK,
        )  # fmt: skip
        result["trunk"]["bound"] = one.lipschitz_bound
        return result

    result = attacked(1.0)
    assert refuted(result) is None
    assert result["own_radius"] == {"certified": len(positive), "certified_fallen": 0}
    [at] = result["epsilons"].values()
    assert at["certified_fallen"] == 0 < at["certified"]
    assert all(0 < layer["found"] <= layer["bound"] for layer in result["layers"])
    assert refuted(attacked(1000.0)) is not None


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("liplt")])
def test_no_margin_is_steeper_than_its_constant_of_liplt(name: str) -> None:
    network, one, images, _ = prepared(name)
    product = LipschitzCertifier(network, one.bounds).margin_lipschitz
    shares = []
    for j, i in permutations(range(network.head.num_classes), 2):

        def margin(x: torch.Tensor, j: int = j, i: int = i) -> torch.Tensor:
            logits = network.logits(network.trunk(x))
            return logits[:, j : j + 1] - logits[:, i : i + 1]

        first = images[:8].double() / 255
        for distance in (0.1, 3.0):
            start = torch.randn(first.shape, generator=torch.Generator().manual_seed(j)).double()
            start = first + distance * start / start.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            found = steepest(margin, first, start, 40)
            assert found <= one.margin_lipschitz[j, i] <= product[j, i]
            shares.append(found / one.margin_lipschitz[j, i])
    assert max(shares) > 0.2
