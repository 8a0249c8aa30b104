"""The norm of every layer, once: proved, and for comparison estimated; alone or over the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

    bounds = divided("bounds", _names(network), dealt(network), prove, world, leave_if_asked)
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

    order = dealt(network)
    return divided("power iteration", _names(network), order, estimate, world, leave_if_asked)


def divided(
    title: str,
    names: Sequence[str],
    dealt: Sequence[int],
    function: Callable[[int], T],
    world: World = ALONE,
    leave_if_asked: Callable[[], None] = _stay,
) -> list[T]:
    """`function` of 0 … n − 1, in order and on every rank, each computed by one rank.

    Args:
        title: of the progress bar.
        names: what the bar says of each.
        dealt: the numbers in the order in which they are dealt to the ranks, costly ones first.
        function: what is computed.
        world: the ranks; every one of them calls this.
        leave_if_asked: called before each.

    Raises:
        RuntimeError: another rank failed.
    """
    mine: dict[int, T] = {}
    failure: Exception | None = None
    numbers = dealt[world.rank :: world.size]
    try:
        with ProgressBar(title, total=len(numbers), unit="layer") as bar:
            for number in numbers:
                leave_if_asked()
                mine[number] = function(number)
                bar.advance(1, layer=names[number])
    except Exception as error:
        failure = error
    if world.size == 1:
        if failure is not None:
            raise failure
        return [mine[number] for number in range(len(names))]
    distributed.raise_together(failure)
    found: dict[int, T] = {}
    for part in distributed.gather_objects(mine):
        found |= part
    return [found[number] for number in range(len(names))]


def _names(network: ExportedNetwork) -> list[str]:
    return [layer.name for layer in network.layers]


def dealt(network: ExportedNetwork) -> list[int]:
    """The order in which ranks are given layers: those with weights, the costly ones, first."""
    layers = network.layers
    return sorted(range(len(layers)), key=lambda number: not layers[number].tensors())
