"""SIGKILL to the real command at random moments; the same command again goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from tests.training.test_resume import final, settings

ROOT = Path(__file__).parents[2]
ONE = [sys.executable]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def command(folder: Path, launcher: list[str]) -> list[str]:
    chosen = settings(folder)
    chosen.training.batch_size = 70  # 20 steps an epoch, divisible by two processes
    chosen.training.epochs = 4
    chosen.checkpoint.every_steps = 3  # most kills fall between checkpoints
    chosen.checkpoint.keep = 2
    chosen.certification.at_end = True
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    return [*launcher, str(ROOT / "launch" / "train.py"), "--config", str(path)]


def start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def finish(words: list[str]) -> None:
    process = start(words)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def kill_while_training(words: list[str], run: Path, moments: random.Random) -> bool:
    """Start, wait for a checkpoint, kill all of it soon after. False if it was finished before.

    Without a checkpoint of its own an attempt was in vain, and after three of them a run gives up.
    """

    def checkpoints() -> set[str]:
        return {path.name for path in run.glob("checkpoints/step_*")}

    before = checkpoints()
    process = start(words)
    while process.poll() is None and checkpoints() <= before:
        time.sleep(0.005)
    time.sleep(moments.uniform(0, 0.4))
    running = process.poll() is None
    with suppress(ProcessLookupError):  # it was finished, and poll has waited for it
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running


def rows_without_time(certificate: Path) -> list[list[str]]:
    rows = [line.split("\t") for line in (certificate / "images.tsv").read_text().splitlines()]
    time_column = rows[0].index("time")
    return [row[:time_column] + row[time_column + 1 :] for row in rows]


def check_kills(tmp_path: Path, launcher: list[str], kills: int) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    for folder in (calm, wild):
        folder.mkdir()
    finish(command(calm, launcher))
    words = command(wild, launcher)
    killed = sum(kill_while_training(words, wild / "tiny", moments) for _ in range(kills))
    assert killed >= 1, "no kill hit the run"
    finish(words)

    (mine, my_rows), (whole, rows) = final(wild / "tiny"), final(calm / "tiny")
    assert mine.step == whole.step == 80
    for name, tensor in whole.tensors.part("model").items():
        assert torch.equal(mine.tensors.whole("model", name), tensor), name
    assert my_rows == rows
    steps = [row["step"] for row in my_rows if row["kind"] == "step"]
    assert steps == list(range(1, 81)), "no step lost, none repeated"
    certificates = [folder / "tiny" / "certificate" for folder in (calm, wild)]
    assert rows_without_time(certificates[0]) == rows_without_time(certificates[1])


def test_one_process_killed_three_times(tmp_path: Path) -> None:
    check_kills(tmp_path, ONE, kills=3)


def test_two_processes_killed_once(tmp_path: Path) -> None:
    check_kills(tmp_path, TWO, kills=1)


@pytest.mark.long
def test_one_process_killed_ten_times(tmp_path: Path) -> None:
    check_kills(tmp_path, ONE, kills=10)
