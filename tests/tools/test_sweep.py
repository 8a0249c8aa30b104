"""tools/sweep.py as it is typed: four real runs, a SIGKILL in the middle, mistakes."""

import csv
import io
import json
import os
import re
import runpy
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import sweep as sweeps
from pipeline.training.guards import NonFiniteError
from tests.launch.test_train import rows

ROOT = Path(__file__).parents[2]
TOOL = "tools/sweep.py"
SMALL = [
    "--training.epochs", "1", "--training.warmup-epochs", "0", "--model.depth", "1",
    "--model.features", "32", "--certification.epsilons", "[36/255, 0.1]",
    "--checkpoint.every-steps", "4",
]  # fmt: skip
FOUR = ["--seeds", "0", "1", "--grid", "model.width=8,12", "--jobs", "2", *SMALL]
NAMES = [f"width={width}_seed{seed}" for width in (8, 12) for seed in (0, 1)]
STEPS = 1437 // 64
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(output: Path, *words: str) -> list[str]:
    return [sys.executable, TOOL, "configs/digits.yaml", *words, f"--output={output}"]


def sweep(output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(output, *words), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


def process_of(*words: str) -> int:
    """The process whose command line has all these words in it."""
    (found,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if all(word in path.read_text() for word in words)
    ]
    return found


Door = Callable[..., tuple[int, str, str]]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Door:
    """The tool's main in this process: a start of Python costs seconds."""
    main = runpy.run_path(str(ROOT / TOOL))["main"]
    monkeypatch.chdir(ROOT)

    def call(output: Path, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", command(output, *words)[1:])
        try:
            status = main()
        except SystemExit as left:
            status = left.code
        return (status, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep that was killed and started again: its directory, and what was then printed.

    Of the two runs that it had under way one is killed as well, the other goes on by itself.
    """
    output = tmp_path_factory.mktemp("sweep")
    directory = output / "digits.sweep"
    killed = subprocess.Popen(
        command(output, *FOUR), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    held: dict[str, int] = {}
    while len(held) < 2:
        assert killed.poll() is None and time.monotonic() < deadline
        for name in NAMES[:2]:
            # The faster one waits for the other: on a busy machine it may be seconds ahead.
            if name not in held and any(directory.glob(f"{name}/checkpoints/step_*")):
                held[name] = process_of(f"--output={output}", name)
                os.killpg(held[name], signal.SIGSTOP)
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    os.killpg(held[NAMES[1]], signal.SIGKILL)
    os.killpg(held[NAMES[0]], signal.SIGCONT)
    killed.wait()
    assert not (directory / NAMES[0] / "certificate" / "certificate.json").exists()
    done = sweep(output, *FOUR)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory, done.stdout


def test_every_run_is_made_once_and_whole(finished: tuple[Path, str]) -> None:
    directory, _ = finished
    for name in NAMES:
        steps = [row["step"] for row in rows(directory / name) if row["kind"] == "step"]
        assert steps == list(range(1, STEPS + 1)), name
        log = (directory / "logs" / f"{name}.log").read_text()
        assert log.count("\nreport: ") == 1
        killed = name == NAMES[1]
        assert log.count("\n$ ") == killed, "the one that went on by itself was not started again"
        assert log.count(": training for ") == 1, "a run begins at its first step only once"
    first = json.loads((directory / NAMES[0] / "certificate" / "certificate.json").read_text())
    assert first["model"]["width"] == 8 and first["epsilons"] == ["36/255", "0.1"]


def test_tables_agree_with_the_certificates(finished: tuple[Path, str]) -> None:
    directory, printed = finished
    found = [
        json.loads((directory / name / "certificate" / "certificate.json").read_text())
        for name in NAMES
    ]
    table = list(csv.DictReader(io.StringIO((directory / "results.csv").read_text())))
    for row, certificate in zip(table, found, strict=True):
        assert float(row["clean_accuracy"]) == certificate["clean_accuracy"]
        assert float(row["vra_0.1"]) == certificate["vra"]["0.1"]
        assert float(row["vra_unsound_36/255"]) == certificate["vra_unsound"]["36/255"]
        assert float(row["lipschitz_bound"]) == certificate["lipschitz_bound"]
    clean = [100 * certificate["clean_accuracy"] for certificate in found]
    assert len(set(clean)) > 1
    for width, pair in ((8, clean[:2]), (12, clean[2:])):
        cell = f"{statistics.mean(pair):.2f} ± {statistics.stdev(pair):.2f}"
        line = next(line for line in printed.splitlines() if line.startswith(f"| {width} "))
        assert line.split("|")[2].strip() == "2" and line.split("|")[3].strip() == cell
        assert line in (directory / "summary.md").read_text()
        assert cell.replace("±", r"\pm") in (directory / "summary.tex").read_text()
    assert (directory / "summary.png").exists() and (directory / "summary.csv").exists()


def test_progress_in_a_file_is_lines(finished: tuple[Path, str]) -> None:
    _, printed = finished
    assert "\x1b" not in printed and "\r" not in printed
    for name in NAMES:
        pattern = (
            rf"^  {re.escape(name)} +done +clean \d+\.\d\d %, VRA \d+\.\d\d % at 36/255(, \d+ s)?$"
        )
        assert re.search(pattern, printed, flags=re.MULTILINE), name


def test_the_same_command_again_runs_nothing(finished: tuple[Path, str], door: Door) -> None:
    directory, before = finished
    logs = [(directory / "logs" / f"{name}.log").read_text() for name in NAMES]
    status, printed, _ = door(directory.parent, *FOUR)
    assert status == 0
    assert [(directory / "logs" / f"{name}.log").read_text() for name in NAMES] == logs
    assert printed[printed.index("# Sweep") :] == before[before.index("# Sweep") :]


def test_another_config_is_refused(finished: tuple[Path, str], door: Door) -> None:
    directory, _ = finished
    status, _, error = door(directory.parent, *FOUR, "--optimizer.lr", "1e-3")
    assert status == 2
    assert (
        "width=8_seed0 is a run of another config (optimizer.lr: 0.02 there, 0.001 here)"
        in (error.splitlines()[-1])
    )


def test_a_dry_run_says_what_is_left(finished: tuple[Path, str], door: Door) -> None:
    directory, _ = finished
    status, printed, _ = door(directory.parent, *FOUR, "--seeds", "0", "7", "--dry-run")
    first, second, *_ = printed.splitlines()
    assert status == 0 and first.startswith("finished ") and second.startswith("to be run ")
    assert "launch/train.py --config configs/digits.yaml" in second
    assert second.endswith("--model.width=8 --name=digits.sweep/width=8_seed7 --seed=7")
    assert not (directory / "width=8_seed7").exists()


@pytest.mark.long
def test_a_failing_run_is_named(tmp_path: Path) -> None:
    done = sweep(tmp_path, "--seeds", "0", *SMALL, "--optimizer.lr", "1e30")
    assert done.returncode == 1
    assert "seed0 failed, exit status 1; the end of" in done.stdout
    assert "the loss is nan" in done.stdout and "± " not in done.stdout
    assert "in no mean (1): seed0" in (tmp_path / "digits.sweep" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds", "0", "--training.epoch", "3"], "did you mean 'training.epochs'?"),
        (["--seeds", "0", "--grid", "model.wdith=8"], "did you mean 'width'?"),
        (["--seeds", "0", "--grid", "model.width"], "expected KEY=VALUE"),
        (["--seeds", "0", "--jobs", "0"], "--jobs 0 must be at least 1"),
        (["--seeds", "0", "--launcher", "acelerate launch"], "no program 'acelerate'"),
        (["--grid", "model.width=8"], "--seeds"),
    ],
)
def test_mistakes_get_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, door: Door
) -> None:
    status, _, error = door(tmp_path, *words)
    assert status == 2 and sentence in error.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_steps_that_cannot_be_measured_are_one_sentence(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(*_: object, **__: object) -> None:
        raise NonFiniteError(3, "the loss is nan")

    monkeypatch.setattr(sweeps, "divide", divide)
    status, _, error = door(tmp_path, "--seeds", "0", "--budget", "5")
    assert status == 1 and error.startswith("error: step 3: the loss is nan")


def test_help_has_examples(door: Door, tmp_path: Path) -> None:
    status, printed, _ = door(tmp_path, "--help")
    assert status == 0
    assert "data.classes.first,model.num_classes=100:100,200:200" in printed
    assert "accelerate launch" in printed and "--dry-run" in printed
