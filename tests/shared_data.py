"""Where the tests find real images that are too large or not free enough to commit.

They lie in the folder named by CERTLINE_TEST_DATA, or in `../shared/data` beside the repository. A
test that asks for a file that is not there is skipped, and says so.
"""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("CERTLINE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def shared_file(name: str) -> Path:
    """Path of a real data file, or skip the calling test."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"real data file {name} is not here: set CERTLINE_TEST_DATA to its folder")
    return path
