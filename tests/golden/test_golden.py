"""The losses of the golden run: the same as stored, and the same twice.

Stored numbers hold within 1e-4 only, since processors differ in the last bits. To the bit, on one
machine, `compare.py REV` compares two commits. After a change that is meant to alter results:

    python -m tests.golden.test_golden
"""

import json
import tempfile
from pathlib import Path

import pytest

from tests.golden.losses import golden_losses

STORED = Path(__file__).with_name("losses.json")


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return golden_losses(tmp_path_factory.mktemp("golden"))


def test_losses_are_the_stored_ones(losses: list[float]) -> None:
    assert losses == pytest.approx(json.loads(STORED.read_text()), rel=1e-4)


def test_two_runs_are_equal_to_the_bit(losses: list[float], tmp_path: Path) -> None:
    assert golden_losses(tmp_path) == losses


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        STORED.write_text(json.dumps(golden_losses(Path(folder)), indent=1) + "\n")
