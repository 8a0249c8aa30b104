"""Which .beton files a folder, a pattern or a name means, and what data cards say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.data.betons.format import card_path

_LISTS = ("duplicates", "skipped", "passed_over")
"""Entries of a card that list single pictures."""


def beton_files(path: str) -> list[str] | None:
    """The files that a folder or a pattern such as `part_*.beton` means, in order of their names.

    Returns:
        None if `path` is neither.

    Raises:
        ValueError: it is one of them, and no file is there.
    """
    place = Path(path)
    if place.is_dir():
        found = sorted(str(file) for file in place.glob("*.beton"))
    elif path.endswith(".beton") and any(mark in place.name for mark in "*?["):
        found = sorted(str(file) for file in place.parent.glob(place.name))
    else:
        return None
    if not found:
        raise ValueError(f"{path}: no .beton file is there")
    return found


def files_of(spec: str) -> list[Path]:
    """The files that a dataset spec names and a data card may lie beside.

    Returns:
        Of a .beton, `beton:PATH` or `npz:PATH`; nothing of sources that have no cards.

    Raises:
        ValueError: a folder or pattern in which there is none.
    """
    form, _, rest = spec.partition(":")
    if form == "beton" and rest:
        return [Path(file) for file in beton_files(rest) or [rest]]
    if form == "npz" and rest:
        return [Path(rest)]
    return [Path(spec)] if spec.endswith(".beton") else []


def read_card(file: Path, of_any_length: bool = False) -> dict[str, Any]:
    """The data card of a file; empty where there is none, or it is of a file of another length.

    Args:
        of_any_length: to be compared with the file by its hash, damaged as it may be.
    """
    try:
        card = json.loads(card_path(file).read_text())
        is_its = of_any_length or card["file_bytes"] == file.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return card if is_its and isinstance(card, dict) else {}


def cards_of(spec: str) -> list[dict[str, Any]]:
    """The data cards of the files of a spec, without the lists of single pictures."""
    cards = [read_card(file) for file in files_of(spec)]
    return [{key: card[key] for key in card if key not in _LISTS} for card in cards if card]
