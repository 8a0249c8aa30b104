"""ExportedNetwork: a function that chains, is read back bit for bit, or is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.layers.exported import KINDS
from pipeline.layers.head import ExportedHead
from pipeline.layers.network import ExportedNetwork
from pipeline.models import build_model


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model("liresnet", 3, 8, 1, depth=2, width=4, features=6).export()


def test_records_and_tensors_are_the_whole_function(network):
    records = json.loads(json.dumps(network.records()))
    again = ExportedNetwork.from_records(records, network.tensors(), [1, 8, 8])
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(again.logits(again.trunk(x)), network.logits(network.trunk(x)))
    assert again.records() == network.records()
    assert list(again.tensors()) == list(network.tensors())


def test_every_kind_that_training_exports_is_registered(network):
    assert {layer.kind for layer in network.layers} <= set(KINDS)


def test_layers_that_do_not_chain_are_refused(network):
    with pytest.raises(ValueError, match=r"'backbone.0.act' takes .* but the output of 'stem.act'"):
        without = [layer for layer in network.layers if layer.name != "backbone.0.conv"]
        without[3] = replace(without[3], input_shape=(6, 8, 8))
        ExportedNetwork(tuple(without), network.head, network.input_shape)
    with pytest.raises(ValueError, match=r"'shift' takes .* but the image has \[1, 9, 9\]"):
        ExportedNetwork(network.layers, network.head, (1, 9, 9))
    with pytest.raises(ValueError, match="the head takes vectors of 6 features"):
        ExportedNetwork(network.layers[:-2], network.head, network.input_shape)


def test_names_and_tensors_are_used_once(network):
    with pytest.raises(ValueError, match=r"two layers have the name 'stem\.act'"):
        doubled = (*network.layers[:3], network.layers[2], *network.layers[3:])
        ExportedNetwork(doubled, network.head, network.input_shape)
    extra = network.tensors() | {"stem.conv.scale": np.ones(1, np.float32)}
    with pytest.raises(ValueError, match=r"'stem.conv.scale' belongs to no layer"):
        ExportedNetwork.from_records(network.records(), extra, network.input_shape)


def test_values_that_are_not_finite_are_refused(network):
    weight = network.head.weight.copy()
    weight[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"'head.weight' has a value that is not finite"):
        head = ExportedHead(weight, network.head.bias)
        ExportedNetwork(network.layers, head, network.input_shape)
