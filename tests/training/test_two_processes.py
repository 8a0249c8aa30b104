"""Training on two real gloo processes, against one."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from pipeline.training.validation import validate
from tests.training.toy import ROOT
from tests.training.two_processes import (
    CHECKS,
    Recorder,
    ToyBlocks,
    same_steps,
    toy_engine,
    toy_loop,
    validation,
)


@pytest.fixture(scope="module")
def launched() -> tuple[dict[str, Any], str]:
    """The result of each check that was passed, and all output."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "tests.training.two_processes"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    names = {check.__name__ for check in CHECKS}
    passed = {name: json.loads(value) for name, _, value in lines if name in names}
    return passed, done.stdout + done.stderr


@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
def test_check(name: str, launched: tuple[dict[str, Any], str]) -> None:
    passed, output = launched
    assert name in passed, output


def test_two_processes_make_the_steps_of_one(launched: tuple[dict[str, Any], str]) -> None:
    recorder = Recorder()
    toy_loop(callbacks=[recorder]).run()
    whole, in_parts = launched[0][same_steps.__name__]
    for rows in (whole, in_parts):
        assert len(rows) == len(recorder.records) == 20
        for record, (loss, correct, norm, lipschitz) in zip(recorder.records, rows, strict=True):
            assert loss == pytest.approx(record.loss, rel=1e-4)
            assert correct == pytest.approx(record.metrics["correct"])
            assert norm == pytest.approx(record.gradient_norm, rel=1e-3)
            assert lipschitz == pytest.approx(record.lipschitz, rel=1e-3)


def test_two_processes_count_every_image_once(launched: tuple[dict[str, Any], str]) -> None:
    for samples, clean, vra in launched[0][validation.__name__]:
        alone = validate(toy_engine(), ToyBlocks(samples, 16), 0.1)
        assert (clean, vra) == (alone.clean_accuracy, alone.vra_estimate)
