"""Inside `estimates_kept()` a network in evaluation finds the steps of its layers once.

Steps of layers that divide by an estimate of their norm want many iterations in evaluation (100 in
CPL), and a validation has hundreds of forwards of the same weights. Who opens the block promises
that no weight changes in it; nothing is kept beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

Kept = dict[nn.Module, Tensor]
"""Estimates by network."""
_KEPT: ContextVar[Kept | None] = ContextVar("kept", default=None)


@contextmanager
def estimates_kept() -> Iterator[None]:
    """Forwards in here, without gradients and in evaluation mode, share their estimates."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def kept_estimates() -> Kept | None:
    """What the block around has kept, to be read and added to; None outside of one."""
    return _KEPT.get()
