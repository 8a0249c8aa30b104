"""Which of the drawn samples go into the file.

Notable: sample i is number i // K of class i mod K. Without a filter the file has the first so many
in that order. With one, each class gives its first that pass: the choice depends on the samples
alone, not on who drew how many of them when.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.diffusion.store import DrawnBatches

MOST_TRIES = 50
"""Samples drawn for one that is wanted, before a filter is taken to be hopeless."""
ENOUGH_TRIES = 300
"""Samples of a class of which none passes, before that too is taken to be hopeless."""


@dataclass(frozen=True)
class Choice:
    """Of the batches drawn so far."""

    indices: npt.NDArray[np.int64]
    """[n], ascending: of the samples that go into the file."""
    dropped: int
    """Samples that a filter rejected, before the last that was wanted of their class."""
    wanting: int
    """Samples of the class that lacks most."""
    passing: float
    """Share of samples that pass, of the class where it is least."""


def quotas(count: int, num_classes: int) -> npt.NDArray[np.int64]:
    """How many samples each class has among `count`, [K]; they differ by one at most."""
    whole, rest = divmod(count, num_classes)
    return whole + (np.arange(num_classes) < rest).astype(np.int64)


def choose(
    store: DrawnBatches,
    batches: int,
    batch_size: int,
    count: int,
    num_classes: int,
    confidence: float | None,
) -> Choice:
    """Choose among the first `batches` batches, all of which are there.

    Args:
        confidence: least one of a filter; None for no filter.
    """
    if confidence is None:
        return Choice(np.arange(count, dtype=np.int64), 0, 0, 1.0)
    quota = quotas(count, num_classes)
    passes = np.concatenate([store.confidences(number) >= confidence for number in range(batches)])
    labels = np.arange(len(passes)) % num_classes
    chosen: list[npt.NDArray[np.int64]] = []
    dropped, wanting, passing = 0, 0, 1.0
    for label in np.flatnonzero(quota):
        members = np.flatnonzero(labels == label)
        good = members[passes[members]][: quota[label]]
        chosen.append(good)
        lacking = int(quota[label]) - len(good)
        last = len(members) if lacking else int(np.searchsorted(members, good[-1])) + 1
        dropped += last - len(good)
        wanting = max(wanting, lacking)
        passing = min(passing, float(passes[members].mean()) if len(members) else 0.0)
    return Choice(np.sort(np.concatenate(chosen)), dropped, wanting, passing)


def batches_needed(
    choice: Choice, batches: int, batch_size: int, count: int, num_classes: int
) -> int:
    """How many batches to have drawn before choosing again, at the rate at which samples pass.

    At most twice as many: the rate of a class of which few passed is hardly known.

    Raises:
        ValueError: so few pass that this would take too long.
    """
    tries = batches * batch_size
    enough = min(MOST_TRIES * count, ENOUGH_TRIES * num_classes)
    if choice.passing * tries < num_classes and tries >= enough:
        raise ValueError(
            f"sampling.filter.confidence: of a class hardly one of {tries // num_classes} samples "
            "passes: lower it, or see whether generator and classifier name classes in one order"
        )
    each = choice.wanting / max(choice.passing, 1 / MOST_TRIES)
    more = -(-int(each * num_classes) // batch_size)
    return batches + min(max(1, more), batches)
