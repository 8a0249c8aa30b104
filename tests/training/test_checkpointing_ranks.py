"""Two training processes save together, and go on from what one process saved, and back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.checkpointing_processes import (
    CHECKS,
    only_rank_0_writes_what_all_hold,
    restored_from_one_process,
)
from tests.training.test_checkpointing import Run
from tests.training.toy import ROOT


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str], str]:
    """The folder, the checks that were passed, and all output."""
    root = tmp_path_factory.mktemp("ranks")
    Run(root / restored_from_one_process.__name__, max_steps=6).go()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "tests.training.checkpointing_processes", str(root)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return root, set(done.stdout.split()), done.stdout + done.stderr


@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
def test_check(name: str, launched: tuple[Path, set[str], str]) -> None:
    _, passed, output = launched
    assert name in passed, output


def test_one_process_goes_on_from_two(launched: tuple[Path, set[str], str]) -> None:
    root = launched[0] / only_rank_0_writes_what_all_hold.__name__
    by_one = Run(launched[0] / "by one", max_steps=8).go()
    again = Run(root, max_steps=8).go()  # from step 6
    for name, tensor in by_one.items():
        assert torch.allclose(tensor.double(), again[name].double(), rtol=1e-3, atol=1e-5), name
