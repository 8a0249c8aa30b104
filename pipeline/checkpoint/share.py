"""What one rank writes of a checkpoint: its fragments in files of its own, whole tensors, state.

Notable: file names say who wrote them, and mean nothing to a reader; the manifest and the headers
do. `optimizer-00003-of-00008.safetensors` is of the third of eight ranks, as Hugging Face counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoint.files import FileRecord, sync_directory, write_file
from pipeline.checkpoint.fragments import Fragment, Part
from pipeline.checkpoint.manifest import STATE_PART
from pipeline.checkpoint.tensor_file import SUFFIX, content
from pipeline.distributed import World


def write_share(
    folder: Path, parts: Mapping[str, Part], state: str | None, world: World
) -> list[FileRecord]:
    """Write and fsync this rank's files. No collective: it may run in a thread.

    Args:
        folder: of all ranks; made where this rank's file server does not see it yet.
        parts: what this rank has to save; not changed in the meantime.
        state: from `state_text`, on rank 0; None on the others.
        world: this rank's place.

    Raises:
        OSError: the disk is full or broken.
    """
    folder.mkdir(exist_ok=True)
    records: list[FileRecord] = []
    for part, tensors in parts.items():
        assert part != STATE_PART, f"{STATE_PART!r} names the JSON part"
        whole = {n: t for n, t in tensors.items() if not isinstance(t, Fragment)}
        pieces = {n: t for n, t in tensors.items() if isinstance(t, Fragment)}
        assert world.is_main or not whole, "whole tensors come from rank 0"
        if whole:
            records.append(write_file(folder, f"{part}{SUFFIX}", part, content(whole)))
        if pieces:
            name = f"{part}-{world.rank + 1:05d}-of-{world.size:05d}{SUFFIX}"
            records.append(write_file(folder, name, part, content(pieces)))
    if state is not None:
        records.append(write_file(folder, "state.json", STATE_PART, [state.encode()]))
    sync_directory(folder)
    return records


def state_text(state: Mapping[str, Any]) -> str:
    """state.json.

    Args:
        state: plain JSON values: text keys, lists rather than tuples, no NaN. Floats return to the
            bit.
    """
    text = json.dumps(state, indent=1, allow_nan=False)
    assert json.loads(text) == state, "state must be plain JSON values"
    return text
