"""The norm of every layer, once: proved, and for comparison estimated; alone or over the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from pipeline import distributed
from pipeline.certify.bound_store import BoundStore
from pipeline.certify.unsound import power_iteration_norm
from pipeline.distributed import World
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound
from pipeline.progress import ProgressBar

T = TypeVar("T")

ALONE = World(rank=0, size=1, local_rank=0)
"""No collectives: this process does all layers."""


def _stay() -> None:
    """Nobody asks anybody to leave."""


def prove_bounds(
    network: ExportedNetwork,
    world: World = ALONE,
    leave_if_asked: Callable[[], None] = _stay,
    store: BoundStore | None = None,
    tight: bool = False,
) -> list[NormBound]:
    """Upper bounds of the Lipschitz constants of `network.layers`, in order, on every rank.

    Bounds depend on neither threads nor processes, so it makes no difference who proves which.
    With a `world` of several ranks, every one of them must call this. `leave_if_asked` is called
    before each layer, and what it raises beside an `Exception` passes through at once. Bounds that
    are in the `store` are not proved again. `tight` asks for bounds nearer to the norms.

    Raises:
        ValueError: a layer for which no finite bound could be proved.
        RuntimeError: another rank failed.
    """

    def prove(number: int) -> NormBound:
        bound = store.read(number) if store is not None else None
        if bound is None:
            layer = network.layers[number]
            bound = layer.tight_norm_bound() if tight else layer.norm_bound()
            if store is not None:
                store.write(number, bound)
        return bound

    bounds = _divided("bounds", network, prove, world, leave_if_asked)
    for layer, bound in zip(network.layers, bounds, strict=True):
        if not math.isfinite(bound.value):
            raise ValueError(
                f"layer {layer.name!r} ({layer.kind}) has no finite norm bound: its weights are "
                "too large or not finite, so nothing can be certified"
            )
    return bounds


def estimate_norms(
    network: ExportedNetwork, world: World = ALONE, leave_if_asked: Callable[[], None] = _stay
) -> list[float]:
    """Converged power iteration of every layer: lower estimates, for `vra_unsound` only."""

    def estimate(number: int) -> float:
        return power_iteration_norm(network.layers[number])

    return _divided("power iteration", network, estimate, world, leave_if_asked)


def share_of_layers(network: ExportedNetwork, world: World) -> list[int]:
    """Numbers of this rank's layers. Those with weights, the costly ones, are dealt first."""
    layers = network.layers
    by_cost = sorted(range(len(layers)), key=lambda number: not layers[number].tensors())
    return by_cost[world.rank :: world.size]


def _divided(
    title: str,
    network: ExportedNetwork,
    function: Callable[[int], T],
    world: World,
    leave_if_asked: Callable[[], None],
) -> list[T]:
    """`function` of every layer's number, in order, each computed by one rank."""
    mine: dict[int, T] = {}
    failure: Exception | None = None
    numbers = share_of_layers(network, world)
    try:
        with ProgressBar(title, total=len(numbers), unit="layer") as bar:
            for number in numbers:
                leave_if_asked()
                mine[number] = function(number)
                bar.advance(1, layer=network.layers[number].name)
    except Exception as error:
        failure = error
    if world.size == 1:
        if failure is not None:
            raise failure
        return [mine[number] for number in range(len(network.layers))]
    distributed.raise_together(failure)
    found: dict[int, T] = {}
    for part in distributed.gather_objects(mine):
        found |= part
    return [found[number] for number in range(len(network.layers))]
