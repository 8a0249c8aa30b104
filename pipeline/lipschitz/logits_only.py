"""Inside `logits_only()` a network computes logits and leaves its Lipschitz estimates out.

For attacks in a training step: the inner problem runs the network ten or a hundred times and looks
at logits alone. The estimates would cost as much as the images, and every forward would advance the
power iteration, so that a step depended on the number of inner steps.

Inside `without_concavity()` it leaves out the one estimate that only CRT's attack looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ESTIMATES: ContextVar[bool] = ContextVar("estimates", default=True)
_CONCAVITY: ContextVar[bool] = ContextVar("concavity", default=True)


@contextmanager
def logits_only() -> Iterator[None]:
    """Forwards in here give logits, and zeros in place of estimates."""
    with _without(_ESTIMATES):
        yield


@contextmanager
def without_concavity() -> Iterator[None]:
    """Forwards in here give no concavity."""
    with _without(_CONCAVITY):
        yield


def estimates_wanted() -> bool:
    """Whether a forward is asked for its estimates."""
    return _ESTIMATES.get()


def concavity_wanted() -> bool:
    """Whether a forward is asked for concavity, if it is for estimates."""
    return _CONCAVITY.get()


@contextmanager
def _without(wish: ContextVar[bool]) -> Iterator[None]:
    token = wish.set(False)
    try:
        yield
    finally:
        wish.reset(token)
