"""What tells a data set from others: its place, its content, its source, and the source's name.

Notable:
- Place and name of a source carry the split: training on one part of an archive and validating on
  the other is what people do. Where both parts are the same pictures, their hashes tell it.
- The hash of a source speaks of its pictures before they are resized or chosen from, so a set of
  another size, or of some of the classes, has it too.
- A set keeps the marks of those that it was written from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.data.betons.card import file_sha256
from pipeline.data.betons.files import cards_of, files_of, read_card
from pipeline.data.betons.format import read_beton
from pipeline.data.content import content_sha256
from pipeline.data.sources import Source, Split, open_source
from pipeline.data.sources.base import existing

PLACE, CONTENT, SOURCE, ORIGIN = "place", "content", "source", "origin"
Mark = tuple[str, str]
"""One of these kinds, and its value."""


def marks_of(
    spec: str, split: Split, hashed: bool = True, source: Source | None = None
) -> set[Mark]:
    """The marks of a data set.

    Args:
        spec: a dataset spec.
        split: which part of a source; a .beton file has only one.
        hashed: compute what no data card tells, which may mean to read all of it.
        source: that of the spec, where it is open already.

    Raises:
        ValueError: it cannot be opened.
    """
    marks = marks_of_cards(cards_of(spec))
    form, _, path = spec.partition(":")
    if form == "beton" or spec.endswith(".beton"):
        for file in files_of(spec):
            marks.add((PLACE, str(file.resolve())))
            if hashed:
                marks.add((CONTENT, beton_sha256(file)))
        return marks
    marks.add((ORIGIN, f"{spec} {split}"))
    if path:
        marks.add((PLACE, f"{Path(path).resolve()} {split}"))
    if hashed:
        source = source or open_source(spec, split)
        marks.add((SOURCE, source.identity))
        if not source.photographs:  # the pixels of these depend on the size that is asked for
            marks.add((CONTENT, content_sha256(source, f"hash {spec}")))
    return marks


def marks_of_cards(cards: Iterable[Mapping[str, Any]]) -> set[Mark]:
    """What data cards say of their files, and of those that these were written from."""
    marks: set[Mark] = set()
    for card in with_earlier(cards):
        for kind, key in (
            (CONTENT, "dataset_sha256"),
            (CONTENT, "file_sha256"),
            (SOURCE, "source_sha256"),
        ):
            if isinstance(card.get(key), str):
                marks.add((kind, card[key]))
        if "source" in card:
            marks.add((ORIGIN, f"{card['source']} {card.get('split')}"))
    return marks


def with_earlier(cards: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Cards and, where images were written again, those of what they were written from."""
    found: list[Mapping[str, Any]] = []
    for card in cards:
        found += [card, *with_earlier(card.get("written_from", []))]
    return found


def same(one: set[Mark], other: set[Mark]) -> bool:
    """Whether two sets have a mark in common; a source's name counts where its hash is unknown."""
    common = {kind for kind, _ in one & other}
    hashed = all(any(kind == SOURCE for kind, _ in marks) for marks in (one, other))
    return bool(common - {ORIGIN} if hashed else common)


def beton_sha256(file: Path) -> str:
    """The content hash of a .beton, or the file's where it holds JPEGs; from its card or computed.

    What is computed is kept as long as the file is of this length and time.

    Raises:
        ValueError: the file is not there, or no .beton file.
    """
    card = read_card(file)
    known = card.get("dataset_sha256") or card.get("file_sha256")
    if isinstance(known, str):
        return known
    facts = existing(file, str(file)).stat()
    return _computed(file, facts.st_size, facts.st_mtime_ns)


@cache
def _computed(file: Path, size: int, changed: int) -> str:
    written = read_beton(file)
    if written.is_exact:
        return content_sha256(written, f"hash {file.name}")
    return file_sha256(file)
