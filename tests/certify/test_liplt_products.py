"""LipLT's products: stored as they are proved, proved once, and the same whoever proves them."""

from pathlib import Path

import pytest
import torch

from pipeline.certify import liplt_products
from pipeline.certify.bound_store import BoundStore
from pipeline.certify.liplt_products import prove_products
from pipeline.certify.methods import prove_margins
from pipeline.distributed import World
from pipeline.layers.network import ExportedNetwork
from pipeline.models import build_model


def network_of() -> ExportedNetwork:
    torch.manual_seed(0)
    return build_model("cnn", 3, 8, 1, plan="4c3f").export()


class Killed(BaseException):
    """What ends a program between two products."""


def test_a_killed_proof_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, store = network_of(), BoundStore(tmp_path / "products", "key")
    asked = 0

    def leave() -> None:
        nonlocal asked
        asked += 1
        if asked > 4:
            raise Killed

    with pytest.raises(Killed):
        prove_products(network, leave_if_asked=leave, store=store)
    assert len(list((tmp_path / "products").glob("*.json"))) == 4
    proved = []
    plain = liplt_products.prove_product

    def counted(maps, key):
        proved.append(key)
        return plain(maps, key)

    monkeypatch.setattr(liplt_products, "prove_product", counted)
    found = prove_products(network, store=store)
    assert len(proved) == len(found) - 4 and len(found) == 21
    proved.clear()
    assert prove_products(network, store=store) == found and not proved
    other = BoundStore(tmp_path / "products", "another network")
    prove_products(network, store=other)
    assert len(proved) == 21
    bounds = [layer.norm_bound() for layer in network.layers]
    stored = prove_margins("liplt", network, bounds, found)
    afresh = prove_margins("liplt", network, bounds)
    assert (stored.margins == afresh.margins).all()
    assert {key: bound.value for key, bound in stored.products.items()} == {
        key: bound.value for key, bound in afresh.products.items()
    }


def test_the_ranks_share_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks, one after the other: each proves half, long products dealt alternately."""
    network, proved = network_of(), []
    monkeypatch.setattr(
        liplt_products, "prove_product", lambda maps, key: proved.append(key) or key
    )
    from pipeline import distributed

    monkeypatch.setattr(distributed, "raise_together", lambda failure: None)

    class Gathered(Exception):
        pass

    def gather(mine):
        raise Gathered

    monkeypatch.setattr(distributed, "gather_objects", gather)
    halves = []
    for rank in range(2):
        with pytest.raises(Gathered):
            prove_products(network, World(rank=rank, size=2, local_rank=rank))
        halves.append(set(proved))
        proved.clear()
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == 21
    assert abs(len(halves[0]) - len(halves[1])) == 1
