"""Inside `logits_only()` a network computes logits and leaves its Lipschitz estimates out.

For attacks in a training step: the inner problem runs the network ten or a hundred times and looks
at logits alone. The estimates would cost as much as the images, and every forward would advance the
power iteration, so that a step depended on the number of inner steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ESTIMATES: ContextVar[bool] = ContextVar("estimates", default=True)


@contextmanager
def logits_only() -> Iterator[None]:
    """Forwards in here give logits, and zeros in place of estimates."""
    token = _ESTIMATES.set(False)
    try:
        yield
    finally:
        _ESTIMATES.reset(token)


def estimates_wanted() -> bool:
    """Whether a forward is asked for its estimates."""
    return _ESTIMATES.get()
