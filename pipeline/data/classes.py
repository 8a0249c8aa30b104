"""Some of the classes of a data set, taken when it is opened: `data.classes`.

Notable:
- The new label is the position in the list that was asked for, and sample ids are positions among
  the pictures that are left, in the order of the whole set. So a subset behaves, hashes and is
  certified like a data set of its own, from the one .beton file.
- The shuffle of `first` is a sort by hash, which no version of NumPy changes; the subsets of
  growing size contain each other, and a class keeps its label in all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.config import ClassesConfig
from pipeline.data.order import permutation


@dataclass(frozen=True)
class ClassSubset:
    """Which samples of the whole set are left, and as what."""

    classes: tuple[int, ...]
    """The labels of the whole set, in the order of the new ones."""
    class_names: tuple[str, ...]
    samples: npt.NDArray[np.int64]
    """[n], ascending: their indices in the whole set."""
    labels: npt.NDArray[np.int64]
    """[n], new."""


def select_classes(
    wanted: ClassesConfig, class_names: Sequence[str], labels: npt.NDArray[np.int64]
) -> ClassSubset:
    """Find the classes asked for.

    Args:
        wanted: names or numbers, or how many of the shuffle. Of a name such as "n01440764 tench"
            the first word or the rest will do where it is the only one.
        class_names: of the whole set.
        labels: [N], of the whole set.

    Raises:
        ValueError: a class that is not there or asked for twice, or one without pictures.
    """
    names = tuple(class_names)
    if wanted.names is None:
        assert wanted.first is not None
        if wanted.first > len(names):
            raise ValueError(
                f"data.classes.first is {wanted.first}, but the data set has {len(names)} classes"
            )
        chosen = permutation(wanted.seed, 0, len(names))[: wanted.first].tolist()
    else:
        chosen = [_number(name, names) for name in wanted.names]
    new_label = np.full(len(names), -1, np.int64)
    for position, label in enumerate(chosen):
        if new_label[label] >= 0:
            raise ValueError(f"data.classes names {names[label]!r} twice: remove one")
        new_label[label] = position
    samples = np.flatnonzero(new_label[labels] >= 0)
    kept = new_label[labels[samples]]
    empty = np.flatnonzero(np.bincount(kept, minlength=len(chosen)) == 0)
    if len(empty):
        raise ValueError(
            f"data.classes names {names[chosen[empty[0]]]!r}, of which the data set has no picture"
        )
    return ClassSubset(tuple(chosen), tuple(names[label] for label in chosen), samples, kept)


def _number(name: int | str, names: tuple[str, ...]) -> int:
    """The label that a name or number means."""
    if isinstance(name, int):
        if not 0 <= name < len(names):
            raise ValueError(
                f"data.classes names the class {name}, but they are 0 to {len(names) - 1}"
            )
        return name
    spellings: dict[str, list[int]] = {}
    for label, full in enumerate(names):
        first, _, rest = full.partition(" ")
        for spelling in {full, first, rest} - {""}:
            spellings.setdefault(spelling, []).append(label)
    exact = [label for label, full in enumerate(names) if full == name]
    found = exact or spellings.get(name, [])
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"data.classes names {name!r}, which may be {names[found[0]]!r} or "
            f"{names[found[1]]!r}: write the whole name"
        )
    near = difflib.get_close_matches(name, spellings, n=1, cutoff=0.6)
    mend = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(names[:5])}, ..."
    raise ValueError(f"data.classes names {name!r}, which the data set has not: {mend}")
