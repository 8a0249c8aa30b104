"""Real images are no generated ones: the check that keeps validation images out of training.

Notable: a set is known by place, by content and by what its data card says of where it comes from,
a generator by the card's hash of its training data; also where images were written again. Real sets
are not read for it: one without a data card is known by place and origin only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import DataConfig
from pipeline.data.betons.card import file_sha256
from pipeline.data.betons.files import read_card
from pipeline.data.betons.format import read_beton
from pipeline.data.content import ContentHash

KEY = "data.generated.path"
Mark = tuple[str, str]
SOURCE = "source_sha256"


def refuse_real_data(files: Sequence[str], paths: Sequence[str], data: DataConfig) -> None:
    """Look at every file of a generated set.

    Args:
        files: as the user names them.
        paths: where they are read, perhaps copies.

    Raises:
        ValueError: one is, or was written from, the training or the validation set; or its
            generator was trained on the validation set.
    """
    real = {"data.train": (data.train, "train"), "data.val": (data.val, "val")}
    known = {key: (spec, _marks(spec, split)) for key, (spec, split) in real.items() if spec}
    for file, path in zip(files, paths, strict=True):
        marks = _marks(file, "train")
        if path.endswith(".beton"):
            marks.add(("content", beton_sha256(Path(path))))
        for key, (spec, theirs) in known.items():
            if _same(marks, theirs):
                raise ValueError(
                    f"{KEY} {file} is the set of {key} {spec}, not generated images: name those, "
                    "or leave data.generated out"
                )
        if "data.val" in known and _learnt(read_card(Path(path))) & known["data.val"][1]:
            raise ValueError(
                f"{KEY} {file}: its data card says that the generator was trained on the set of "
                f"data.val {data.val}, which training must not see: generate from data.train"
            )


def beton_sha256(beton: Path) -> str:
    """The content hash of a file, or the file's where it holds JPEGs; from its card or computed."""
    card = read_card(beton)
    known = card.get("dataset_sha256") or card.get("file_sha256")
    if isinstance(known, str):
        return known
    file = read_beton(beton)
    if not file.is_exact:
        return file_sha256(beton)
    content = ContentHash()
    for index in range(len(file)):
        content.update(file.label(index), file.image(index))
    return content.hexdigest()


def _marks(spec: str, split: str) -> set[Mark]:
    """What tells a data set from others, without reading it."""
    if not spec.endswith(".beton"):
        place = Path(spec.partition(":")[2] or spec)
        return {("place", str(place.resolve())), ("origin", f"{spec} {split}")}
    marks = {("place", str(Path(spec).resolve()))}
    for card in _cards(read_card(Path(spec))):
        for name in ("dataset_sha256", "file_sha256"):
            if isinstance(card.get(name), str):
                marks.add(("content", card[name]))
        if isinstance(card.get("source_sha256"), str):
            marks.add((SOURCE, card["source_sha256"]))
        if "source" in card:
            marks.add(("origin", f"{card['source']} {card.get('split')}"))
    return marks


def _same(one: set[Mark], other: set[Mark]) -> bool:
    """Whether two sets have a mark in common; a source's name counts where its hash is unknown."""
    common = {kind for kind, _ in one & other}
    hashed = all(any(kind == SOURCE for kind, _ in marks) for marks in (one, other))
    return bool(common - {"origin"} if hashed else common)


def _learnt(card: dict[str, Any]) -> set[Mark]:
    """The content of what the generators of a file were trained on."""
    known = [(each.get("training_data") or {}).get("dataset_sha256") for each in _cards(card)]
    return {("content", sha256) for sha256 in known if sha256}


def _cards(card: dict[str, Any]) -> list[dict[str, Any]]:
    """A card and, where the images were written again, those that they were written from."""
    return [card, *(before for each in card.get("written_from", []) for before in _cards(each))]
