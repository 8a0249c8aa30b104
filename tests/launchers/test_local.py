"""--local: the same job as processes of this machine, started again by the same rules."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.training.toy import ROOT

SMALL = [
    "--nodes", "2", "--gpus-per-node", "0", "--config", "configs/digits.yaml", "--local",
    "--model.width", "8", "--model.depth", "1", "--model.features", "32",
    "--training.epochs", "12", "--training.warmup-epochs", "0.5", "--optimizer.lr", "5e-3",
]  # fmt: skip
STEPS = 12 * (1437 // 64)


def start(output: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "launch/slurm.py", *SMALL, "--output", str(output), *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def steps(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [row["step"] for row in rows if row["kind"] == "step"]


def wait_for_steps(process: subprocess.Popen[str], run: Path, more_than: int) -> None:
    deadline = time.monotonic() + 200
    while len(steps(run)) <= more_than:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def history(run: Path, number: str = "001") -> list[dict]:
    lines = (run / "jobs" / number / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_stopped_it_goes_on_with_the_same_command_preempted_it_starts_again(
    tmp_path: Path,
) -> None:
    run = tmp_path / "digits"
    process = start(tmp_path)
    wait_for_steps(process, run, 5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 75, output
    assert "the same command goes on from there" in output and "starting again" not in output
    stopped = steps(run)[-1]
    assert 5 < stopped < STEPS

    process = start(tmp_path)
    wait_for_steps(process, run, stopped)
    process.send_signal(signal.SIGUSR2)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert "left early and saved; starting again" in output
    assert "certified 360 images" in output
    assert steps(run) == list(range(1, STEPS + 1)), "no step lost, none repeated"
    verdicts = [row["verdict"] for row in history(run, "002") if row["event"] == "ended"]
    assert verdicts == ["request", "finished"]
    assert (run / "jobs" / "002" / "attempts" / "local.1" / "0001.log").is_file()


def test_ctrl_c(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_steps(process, tmp_path / "digits", 5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    assert "the same command goes on from the last checkpoint" in output
    assert list((tmp_path / "digits" / "checkpoints").glob("step_*"))


def test_refused(tmp_path: Path) -> None:
    process = start(tmp_path, "--optimizer.lr", "1e30")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert output.strip().splitlines()[-1].startswith("error: step ")
    assert [row["event"] for row in history(tmp_path / "digits")] == ["submitted", "ended"]
