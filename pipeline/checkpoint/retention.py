"""Which checkpoints are kept: the newest, and beside them the best by validation.

Notable: what a checkpoint is worth stands in its own state.json, so a restarted run still knows its
best. The value is the *estimate* of VRA in training; only certification proves one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.checkpoint.files import DamagedError, read_verified
from pipeline.checkpoint.manifest import STATE_PART, read_manifest


def doomed(found: Sequence[tuple[int, Path]], step: int, keep: int, keep_best: int) -> list[Path]:
    """What may be deleted once the checkpoint of `step` is written.

    Args:
        found: steps and paths, newest first.
        step: checkpoints of later steps (damaged ones that loading passed over) are neither counted
            nor deleted; the run replaces them when it gets there.
        keep: the newest so many stay; at least 1.
        keep_best: and of all the best so many.

    Raises:
        OSError: what they are worth cannot be read at the moment.
    """
    assert keep >= 1, f"keep {keep} would delete the checkpoint just written"
    mine = [(number, path) for number, path in found if number <= step]
    if len(mine) <= keep:
        return []
    best, _ = best_first(mine)
    stays = {path for _, path in [*mine[:keep], *best[:keep_best]]}
    return [path for _, path in mine if path not in stays]


def best_first(
    found: Sequence[tuple[int, Path]],
) -> tuple[list[tuple[int, Path]], list[str]]:
    """Order checkpoints by the estimate of VRA that their weights were found to have.

    Args:
        found: steps and paths, newest first.

    Returns:
        The validated ones, best first, of equals the newer; and a sentence for each whose value
        cannot be read because it is damaged.

    Raises:
        OSError: one cannot be read at the moment.
    """
    rated: list[tuple[float, int, Path]] = []
    damaged: list[str] = []
    for step, path in found:
        try:
            value = vra_estimate(read_state(path, step))
        except (DamagedError, ValueError) as reason:
            damaged.append(f"{path.name}: {reason}")
            continue
        if value is not None:
            rated.append((value, step, path))
    rated.sort(key=lambda entry: entry[0], reverse=True)  # stable: the newer stays before its equal
    return [(step, path) for _, step, path in rated], damaged


def vra_estimate(state: dict[str, Any]) -> float | None:
    """The value in a state.json; None where the weights were not validated (or by format 1)."""
    validation = state.get("validation")
    return None if validation is None else float(validation["vra_estimate"])


def read_state(path: Path, step: int) -> dict[str, Any]:
    """The verified state.json of a checkpoint.

    Raises:
        DamagedError: it, or the manifest, is missing or damaged.
        ValueError: the checkpoint is of a format that this version does not read.
    """
    for record in read_manifest(path, step):
        if record.part == STATE_PART:
            state: dict[str, Any] = json.loads(read_verified(path, record))
            return state
    return {}
