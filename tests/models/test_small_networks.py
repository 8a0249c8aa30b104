"""The networks of CRM and CRC: their shapes as printed, their estimates, and what they refuse."""

import pytest
import torch
from torch import nn

from pipeline.layers.activation import Activation
from pipeline.layers.dense import Dense
from pipeline.layers.linear_head import LinearHead
from pipeline.layers.minmax import MinMax
from pipeline.lipschitz.logits_only import logits_only
from pipeline.models import build_model
from pipeline.models.slope_network import SlopeNetwork


@pytest.mark.parametrize(
    ("plan", "size", "channels", "classes", "flat", "parameters"),
    [
        # counted by hand from the papers' tables
        ("4c3f", 28, 1, 10, 3136, 1_974_762),
        ("6c2f", 32, 3, 10, 1024, 733_866),
        ("8c2f", 64, 3, 200, 256 * 6 * 6, 4_342_984),
    ],
)
def test_plans_are_as_printed(plan, size, channels, classes, flat, parameters) -> None:
    torch.manual_seed(0)
    model = build_model("cnn", classes, size, channels, plan=plan)
    assert model.trunk.dense0.weight.shape[1] == flat
    assert sum(each.numel() for each in model.parameters()) == parameters
    assert model.trunk(torch.rand(1, channels, size, size)).shape[1] == model.head.weight.shape[1]


def test_liplt_is_tighter_than_the_product() -> None:
    found = []
    for lipschitz in ("liplt", "product"):
        torch.manual_seed(0)
        model = build_model("mlp", 4, 4, 1, hidden=[12, 12, 12], lipschitz=lipschitz)
        model.power_iterations = 200
        found.append(model(torch.rand(1, 1, 4, 4)).margin_lipschitz)
    tight, loose = found
    others = ~torch.eye(4, dtype=torch.bool)
    assert (tight[others] < loose[others]).all() and (tight.diagonal() == 0).all()
    assert torch.allclose(tight, tight.T)


def test_logits_only_leaves_estimates_and_vectors_alone() -> None:
    torch.manual_seed(0)
    model = build_model("cnn", 3, 8, 1).train()
    images = torch.rand(2, 1, 8, 8)
    before = [buffer.clone() for buffer in model.buffers()]
    with logits_only():
        quick = model(images)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert (quick.margin_lipschitz == 0).all()
    whole = model(images)
    assert torch.equal(quick.logits, whole.logits)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    after = [buffer.clone() for buffer in model.buffers()]
    model.hold_power_iteration = True
    model(images)
    assert all(torch.equal(a, b) for a, b in zip(after, model.buffers(), strict=True))


def test_the_export_is_the_network() -> None:
    torch.manual_seed(0)
    for model in (
        build_model("cnn", 3, 8, 1, activation="leaky_relu"),
        build_model("mlp", 3, 8, 1, hidden=[6, 5], activation="tanh"),
    ):
        images = torch.rand(3, 1, 8, 8)
        network = model.export()
        logits = network.logits(network.trunk(images.double()))
        assert torch.allclose(logits.float(), model(images).logits, atol=1e-5)
        copy = type(network).from_records(network.records(), network.tensors(), (1, 8, 8))
        assert torch.equal(copy.logits(copy.trunk(images.double())), logits)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("cnn", {"plan": "5c1f"}, "model.plan is '5c1f'"),
        ("cnn", {"activation": "rleu"}, "did you mean 'relu'"),
        ("cnn", {"plan": "8c2f"}, "too small"),
        ("mlp", {"hidden": []}, "model.hidden is"),
        ("mlp", {"hidden": [0]}, "model.hidden is 0"),
        ("mlp", {"activation": "relu"}, "no second derivative"),
        ("mlp", {"lipschitz": "lipsdp"}, "model.lipschitz is 'lipsdp'"),
    ],
)
def test_mistakes_are_named(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_model(name, 3, 8, 1, **options)


def test_other_layers_and_missing_activations_are_refused() -> None:
    for trunk in (
        nn.Sequential(Dense(16, 4), MinMax()),
        nn.Sequential(Dense(16, 4)),
        nn.Sequential(Activation("relu")),
        nn.Sequential(Dense(16, 4), Dense(4, 4), Activation("relu")),
    ):
        with pytest.raises(ValueError, match="layer '"):
            SlopeNetwork(trunk, LinearHead(4, 3), (1, 4, 4), 1)
