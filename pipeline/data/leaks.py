"""Real images are no generated ones: the check that keeps validation images out of training.

Notable: sets are compared by all their marks (`marks.py`), and with those of the validation set
what the data cards of generated images say of the training of their generators, also where images
were written again. The training set is not read for it: without a data card it is known by place
and name only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline.config import DataConfig
from pipeline.data.betons.files import cards_of
from pipeline.data.marks import CONTENT, Mark, marks_of, same, with_earlier
from pipeline.data.sources import Source
from pipeline.progress import say

KEY = "data.generated.path"


def refuse_real_data(
    files: Sequence[str], paths: Sequence[str], data: DataConfig, source: Source | None = None
) -> None:
    """Look at every file of a generated set.

    Args:
        files: as the user names them.
        paths: where they are read, perhaps copies.
        source: of a set that is no .beton file, where it is open already.

    Raises:
        ValueError: one is, or was written from, the training or the validation set; or its
            generator was trained on the validation set.
    """
    known: dict[str, tuple[str, set[Mark]]] = {}
    if data.train:
        known["data.train"] = (data.train, marks_of(data.train, "train", hashed=False))
    if data.val:
        known["data.val"] = (data.val, _marks_of_val(data.val))
    unknown: list[str] = []
    for file, path in zip(files, paths, strict=True):
        marks = marks_of(path, "train", source=source) | marks_of(file, "train", hashed=False)
        for key, (spec, theirs) in known.items():
            if same(marks, theirs):
                raise ValueError(
                    f"{KEY} {file} is the set of {key} {spec}, not generated images: name those, "
                    "or leave data.generated out"
                )
        if "data.val" in known and not _checked(file, *known["data.val"]):
            unknown.append(file)
    if unknown:
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        say(
            f"{KEY} {unknown[0]}{others}: no data card says enough of what the generator was "
            f"trained on; whether it has seen data.val {data.val} was not checked"
        )


def _marks_of_val(spec: str) -> set[Mark]:
    try:
        return marks_of(spec, "val")
    except ValueError as error:
        raise ValueError(f"data.val: {error}") from None


def _checked(file: str, val: str, theirs: set[Mark]) -> bool:
    """Compare what generators learnt with the validation set; False where too little is known.

    Raises:
        ValueError: one was trained on it.
    """
    found = False
    for card in with_earlier(cards_of(file)):
        learnt = card.get("training_data")
        if not isinstance(learnt, dict):
            continue
        if same(_learnt(learnt, val), theirs):
            raise ValueError(
                f"{KEY} {file}: its data card says that the generator was trained on the set of "
                f"data.val {val}, which training must not see: generate from data.train"
            )
        found |= "known_as" in learnt or any(kind == CONTENT for kind, _ in theirs)
    return found


def _learnt(training_data: Mapping[str, Any], val: str) -> set[Mark]:
    """The marks of a generator's training data (`pipeline.diffusion.training_data`)."""
    marks: set[Mark] = set()
    if isinstance(training_data.get("dataset_sha256"), str):
        marks.add((CONTENT, training_data["dataset_sha256"]))
    if "known_as" in training_data:
        for kind, values in training_data["known_as"].items():
            marks |= {(kind, value) for value in values}
    elif isinstance(spec := training_data.get("spec"), str):  # a card of an older version
        with suppress(ValueError):  # what lay there may be gone
            marks |= marks_of(spec, "train", hashed=spec == val)
    return marks
