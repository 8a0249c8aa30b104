"""Which .beton files a folder, a pattern or a name means, and what their data cards say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.data.betons.format import card_path


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


def read_card(beton: Path) -> dict[str, Any]:
    """The data card of a file; empty where there is none, or it is of a file of another length."""
    try:
        card: dict[str, Any] = json.loads(card_path(beton).read_text())
        return card if card["file_bytes"] == beton.stat().st_size else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
