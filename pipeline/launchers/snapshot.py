"""A copy of the code for a job, so that what is edited while it is queued does not change it.

Notable: compiled files (`__pycache__`, with numba's kernels) come along with their times, so that
not every rank of a large job compiles them again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout, or the snapshot that this very file was copied to."""
PARTS = ("pipeline", "launch", "tools", "configs", "pyproject.toml")


def take_snapshot(target: Path) -> None:
    """Copy the code to `target`, which must not exist.

    Raises:
        OSError: it cannot be written.
    """
    target.mkdir()
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, copy_function=_copy)
        elif source.is_file():  # an installed package has no pyproject.toml beside it
            shutil.copy2(source, target / name)


def _copy(source: str, target: str) -> str:
    """Like `shutil.copy2`, for a tree whose compiled files another program may just be renewing."""
    try:
        return shutil.copy2(source, target)
    except FileNotFoundError:
        if "__pycache__" not in source:
            raise
        return target
