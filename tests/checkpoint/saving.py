"""Checkpoints for tests: what is in them, how they are saved, how they are damaged."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoint import Checkpoint, Part, Saver
from pipeline.checkpoint.manifest import _digest
from pipeline.checkpoint.store import final_path
from pipeline.distributed import World

ALONE = World(rank=0, size=1, local_rank=0)
STATE = {"epoch": 3, "nested": {"list": [0.1, 1e-300]}, "name": "täst"}


def some_tensors(step: int, size: int = 50) -> dict[str, dict[str, Tensor]]:
    """Tensors of many kinds, others for each step."""
    generator = torch.Generator().manual_seed(step)
    whole = torch.randn(size, generator=generator)
    return {
        "model": {
            "weight": whole.view(-1, 5),
            "half": whole.bfloat16(),
            "shared": whole[:3],
            "transposed": whole.view(-1, 5).T,
            "scalar": torch.tensor(step, dtype=torch.int64),
            "flags": whole > 0,
            "empty": torch.zeros(0, 3),
        },
        "rng": {"rank0.cpu": torch.arange(9, dtype=torch.uint8)},
    }


def save(
    root: Path,
    step: int,
    parts: Mapping[str, Part] | None = None,
    state: Mapping[str, Any] = STATE,
    keep: int = 3,
    keep_best: int = 0,
) -> Path:
    """Save from this process alone, to the end; `some_tensors` of the step unless told."""
    saver = Saver(root, ALONE, keep, keep_best)
    saver.begin(step, some_tensors(step) if parts is None else parts, state)
    saver.finish()
    return final_path(root, step)


def assert_saved(
    found: Checkpoint | None,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    state: Mapping[str, Any] = STATE,
) -> None:
    """What was read is what was saved, to the bit."""
    assert found is not None
    assert (found.step, found.state) == (step, state)
    for part, saved in (some_tensors(step) if tensors is None else tensors).items():
        assert found.tensors.names(part) == sorted(saved)
        for name, again in found.tensors.part(part).items():
            assert again.dtype == saved[name].dtype
            assert torch.equal(again, saved[name]), f"{part}/{name}"


def no_damage(sentence: str) -> None:
    """For `say`: nothing is to be said."""
    raise AssertionError(sentence)


def flip(path: Path, place: int) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """Change keys of a manifest, and its hash with them."""
    body = json.loads((folder / "manifest.json").read_text())
    del body["sha256"]
    body.update(changes)
    (folder / "manifest.json").write_text(json.dumps(body | {"sha256": _digest(body)}))


def names(root: Path) -> list[str]:
    """What lies in a folder, hidden or not."""
    return sorted(path.name for path in root.iterdir())
