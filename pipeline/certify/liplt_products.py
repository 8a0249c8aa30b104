"""The products that LipLT proves, divided over the ranks and stored one by one.

Notable: they are the costly part of a LipLT certificate (minutes for 4C3F), so each is a file as
soon as it is proved, and a certification that is killed proves none of them twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.certify.bound_store import BoundStore
from pipeline.certify.bounds import ALONE, divided
from pipeline.certify.residual_stages import is_residual
from pipeline.certify.stages import stages_of
from pipeline.distributed import World
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.liplt_bound import products_to_prove, prove_product


def prove_products(
    network: ExportedNetwork,
    world: World = ALONE,
    leave_if_asked: Callable[[], None] = lambda: None,
    store: BoundStore | None = None,
) -> dict[tuple[int, int], NormBound]:
    """‖W_last⋯W_first‖ for every product that fits, on every rank, by (last, first).

    None for a residual network, which is proved in one piece.

    Args:
        network: of convolutions, dense layers and activations.
        world: the ranks; every one of them calls this.
        leave_if_asked: as in `prove_bounds`.
        store: where each is kept.

    Raises:
        ValueError: as `stages_of`, or a product without finite bound.
        RuntimeError: another rank failed.
    """
    if is_residual(network):
        return {}  # small enough to be proved at once: `residual_stages`
    stages = stages_of(network)
    keys = products_to_prove(stages.maps)
    names = [network.layers[number].name for number in stages.numbers]
    titles = [
        names[last] if last == first else f"{names[first]}…{names[last]}" for last, first in keys
    ]

    def prove(number: int) -> NormBound:
        bound = store.read(number) if store is not None else None
        if bound is None:
            bound = prove_product(stages.maps, keys[number])
            if store is not None:
                store.write(number, bound)
        return bound

    dealt = list(range(len(keys)))[::-1]  # long products first: they cost most
    bounds = divided("products", titles, dealt, prove, world, leave_if_asked)
    for title, bound in zip(titles, bounds, strict=True):
        if not math.isfinite(bound.value):
            raise ValueError(f"the product {title} has no finite norm bound: nothing is certified")
    return dict(zip(keys, bounds, strict=True))
