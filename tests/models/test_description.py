"""Describing a network: every name, and its counts against the network itself."""

import pytest
import torch

from pipeline.models import build_model, list_models
from pipeline.models.description import describe, facts_of, table
from pipeline.models.registry import _MODELS

SMALL = {
    "mlp": {"hidden": [6, 5]},
    "cnn": {},
    "slope_resnet": {"width": 6, "inner": 5, "blocks": 2},
    "liresnet": {"depth": 1, "width": 4, "features": 8},
    "cpl": {"depth": 1, "channels": 4, "dense_depth": 1, "features": 8, "scale": True},
}


@pytest.mark.parametrize("name", list_models())
def test_every_network_has_a_description(name: str) -> None:
    sizes = {"depth": 1, "dense_depth": 1, "width": 16, "features": 16}
    less = {key: value for key, value in sizes.items() if key in _MODELS.options(name)}
    facts = describe(name, 4, 8, 1, **less)
    with torch.device("meta"):
        model = build_model(name, 4, 8, 1, **less)
    assert facts.parameters == sum(each.numel() for each in model.parameters())
    assert facts.layers[-1].output_shape == (4,) and facts.flops > 0
    assert len(table(facts).splitlines()) == len(facts.layers) + 2


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_left_as_it_was(name: str) -> None:
    model = build_model(name, 4, 8, 1, **SMALL[name]).eval()
    before = [buffer.clone() for buffer in model.buffers()]
    facts = facts_of(model, torch.rand(1, 1, 8, 8))
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert facts == describe(name, 4, 8, 1, **SMALL[name])


def test_estimates_are_counted_as_of_a_training_step() -> None:
    """W is 4×64 and 3×4: each iteration two products with each, and one more for the norm; and the
    distances of the head's three rows of three."""
    facts = describe("mlp", 3, 8, 1, hidden=[4, 3], power_iterations=5, curvature=False)
    assert facts.estimate_flops == (2 * 5 + 1) * 2 * (4 * 64 + 3 * 4) + 2 * 3 * 3 * 3
    dense = describe("cpl", 4, 8, 1, depth=1, channels=4, dense_depth=0, conv_hidden=5)
    assert dense.estimate_flops == 3 * 2 * (4 * 5 * 9 * 64)  # one iteration, whatever evaluation's
