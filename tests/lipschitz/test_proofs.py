"""Proofs that an export needs: divided over the ranks, and the export is the same."""

import numpy as np
import pytest
import torch

from pipeline.distributed import World
from pipeline.lipschitz import proofs as module
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.proofs import NormProofs, proved_once, sharing
from pipeline.models import build_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"depth": 2, "channels": 4, "dense_depth": 2, "features": 6}
    return build_model("cpl", 3, 8, 1, **sizes, skew=True)


def test_two_ranks_prove_every_norm_once_and_export_the_same(model, monkeypatch) -> None:
    alone = model.export()
    ranks = [NormProofs(rank, 2) for rank in range(2)]
    for proofs in ranks:
        with sharing(proofs):
            model._export()
    shares = [set(proofs.found) for proofs in ranks]
    assert not shares[0] & shares[1] and sorted(map(len, shares)) == [3, 3]  # 4 potentials, 2 SOC
    monkeypatch.setattr(
        module, "gather_objects", lambda value: [ranks[0].found, dict(ranks[1].found)]
    )
    ranks[0].exchange()
    with sharing(ranks[0]):
        network = model._export()
    assert len(ranks[0].found) == 6
    tensors = alone.tensors()
    assert all(np.array_equal(array, tensors[name]) for name, array in network.tensors().items())
    bounds = zip(network.layers, alone.layers, strict=True)
    assert all(ours.norm_bound() == theirs.norm_bound() for ours, theirs in bounds)


def test_one_process_of_a_world_of_one(model) -> None:
    assert model.export(World(0, 1, 0)).records() == model.export().records()


def test_equal_weights_are_one_proof_wherever_they_are_asked_for() -> None:
    weights = [np.zeros((2, 2)), np.eye(2), np.zeros((2, 2))]
    asked = []
    for rank in range(2):
        proofs = NormProofs(rank, 2)
        with sharing(proofs):
            for weight in weights:
                proved_once(weight, (2,), lambda: asked.append(rank) or NormBound(1.0, "exact"))  # noqa: B023
    assert asked == [0, 1]


def test_a_shape_makes_another_norm() -> None:
    proofs = NormProofs()
    for size in (4, 5):
        proofs.bound(np.eye(2), (2, size, size), lambda: NormBound(float(size), "exact"))  # noqa: B023
    assert sorted(bound.value for bound in proofs.found.values()) == [4.0, 5.0]


def test_a_norm_that_nobody_has_proved_yet_is_infinite_and_afterwards_one_s_own_work() -> None:
    proofs = NormProofs(rank=1, size=2)
    ask = (np.ones((1, 1), np.float32), (1,), lambda: NormBound(2.0, "proved"))
    assert proofs.bound(*ask).value == np.inf
    proofs.exchange()
    assert proofs.bound(*ask).value == 2.0
