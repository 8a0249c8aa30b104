"""Norms that an export needs, each proved once: by one rank, for all.

Notable: a convex potential's step is frozen from a proved norm, so that exporting proves norms.
With several ranks every one of them exports twice: first its share of the layers with proofs and
the others with none, then, when the proofs have been exchanged, all of them. A proof depends on the
stored weight only, so it makes no difference who found it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from pipeline.distributed import gather_objects
from pipeline.lipschitz.bound import NormBound


class NormProofs:
    """What has been proved so far.

    Args:
        rank: of this process; it proves every `size`-th norm that is new, in the order of asking.
        size: processes; once `exchange` is done, every one of them knows all.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.found: dict[str, NormBound] = {}
        self._rank, self._size = rank, size
        self._numbers: dict[str, int] = {}
        self._exchanged = False

    def bound(
        self, weight: np.ndarray, shape: tuple[int, ...], prove: Callable[[], NormBound]
    ) -> NormBound:
        """The norm of a weight at an input shape; inf where another rank is still to prove it."""
        key = hashlib.sha256(np.ascontiguousarray(weight).tobytes())
        key.update(repr((weight.shape, weight.dtype.str, shape)).encode())
        name = key.hexdigest()
        number = self._numbers.setdefault(name, len(self._numbers))
        if name not in self.found:
            if number % self._size != self._rank and not self._exchanged:
                return NormBound(math.inf, "another rank's")
            self.found[name] = prove()
        return self.found[name]

    def exchange(self) -> None:
        """Learn what the other ranks have proved. A collective."""
        for part in gather_objects(self.found):
            self.found |= part
        self._exchanged = True


_active: ContextVar[NormProofs | None] = ContextVar("proofs", default=None)


@contextmanager
def sharing(proofs: NormProofs) -> Iterator[None]:
    """`proved_once` within asks `proofs`."""
    token = _active.set(proofs)
    try:
        yield
    finally:
        _active.reset(token)


def proved_once(
    weight: np.ndarray, shape: tuple[int, ...], prove: Callable[[], NormBound]
) -> NormBound:
    """`prove()`, unless the export under way knows it already."""
    proofs = _active.get()
    return prove() if proofs is None else proofs.bound(weight, shape, prove)
