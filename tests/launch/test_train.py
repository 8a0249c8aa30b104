"""launch/train.py as people type it: alone, under accelerate, interrupted, wrong."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.toy import ROOT

SMALL = [
    "--config", "configs/digits.yaml", "--model.width", "8", "--model.depth", "1",
    "--model.features", "32", "--training.epochs", "2", "--training.warmup-epochs", "0.5",
    "--certification.at-end", "false", "--data.train", "digits", "--data.val", "digits",
    "--training.batch-size", "64", "--optimizer.lr", "5e-3",
]  # fmt: skip
STEPS = 2 * (1437 // 64)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]


def train(
    output: Path, *words: str, launcher: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*(launcher or [sys.executable]), "launch/train.py", *SMALL, "--output", str(output)]
    return subprocess.run(
        [*command, *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run) if row["kind"] == "step"]


def weights(run: Path) -> bytes:
    (last,) = sorted((run / "checkpoints").glob(f"step_*{STEPS}"))
    return (last / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, under `accelerate launch` with one process."""
    output = tmp_path_factory.mktemp("whole")
    done = train(output, launcher=ACCELERATE)
    assert done.returncode == 0, done.stdout + done.stderr
    return output / "digits"


def test_a_run_leaves_its_record(whole: Path) -> None:
    found = rows(whole)
    assert [row["step"] for row in found if row["kind"] == "step"] == list(range(1, STEPS + 1))
    epochs = [row for row in found if row["kind"] == "epoch"]
    assert [row["step"] for row in epochs] == [STEPS // 2, STEPS]
    assert epochs[0]["threatening_class_changed"] is None
    assert 0 < epochs[1]["threatening_class_changed"] < 1
    assert epochs[1]["validation"]["num_images"] == 360
    assert epochs[1]["validation"]["clean_accuracy"] > 0.12
    assert list((whole / "tensorboard").iterdir())


def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "launch/train.py", *SMALL, "--output", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    record = tmp_path / "digits" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (record.exists() and record.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the same command goes on from there" in output and "Traceback" not in output
    assert 3 <= len(losses(tmp_path / "digits")) < STEPS
    done = train(tmp_path)
    assert done.returncode == 0 and "going on after step" in done.stdout, done.stderr
    assert losses(tmp_path / "digits") == losses(whole)
    assert weights(tmp_path / "digits") == weights(whole)


def test_two_processes_under_accelerate(whole: Path, tmp_path: Path) -> None:
    two = [*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    done = train(tmp_path, "--max-steps", "20", launcher=two)
    assert done.returncode == 0, done.stdout + done.stderr
    found = losses(tmp_path / "digits.trial")
    assert found == pytest.approx(losses(whole)[:20], rel=1e-4)


def door(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the door within this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as left:
        runpy.run_path("launch/train.py", run_name="__main__")
    return int(left.value.code or 0)


def test_help_has_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert "accelerate launch launch/train.py --config" in printed
    assert "--max-steps" in printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--training.epoch", "3"], "did you mean 'training.epochs'?"),
        (["--training.batch-size", "0"], "training.batch_size"),
        (["--epsilon.target", "36/0"], "36/0"),
    ],
)
def test_a_wrong_config_is_one_sentence(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert door(monkeypatch, *SMALL, "--output", str(tmp_path), *words) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_another_config_in_its_place_is_one_sentence(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door(monkeypatch, *SMALL, "--output", str(whole.parent), "--seed", "5") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "seed: 0 there, 5 here" in line
