"""Sweeps with a stand-in for launch/train.py: failures, interrupts, several at a time."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from signal import SIGHUP, SIGINT

import pytest

from pipeline.sweep import conduct
from pipeline.sweep.conduct import command_of, log_of
from pipeline.sweep.processes import RunProcess
from pipeline.sweep.stop import StopRequests
from tests.sweep.small import program, sweep


def test_a_failing_point_does_not_take_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = sweep(tmp_path, "model.depth=1,4,8", seeds=(0, 1))
    outcome = conduct(found, program(tmp_path), jobs=3)
    assert outcome.finished == ["depth=8_seed0", "depth=8_seed1"]
    assert outcome.failed == [
        "depth=1_seed0", "depth=1_seed1", "depth=4_seed0", "depth=4_seed1",
    ]  # fmt: skip
    assert not outcome.interrupted
    printed = capsys.readouterr().out
    assert "depth=1_seed0 failed, exit status 3" in printed and "  | train: 2%\n" in printed
    assert "depth=4_seed1 failed, it ended without a certificate" in printed
    assert "failed: depth=1_seed0, depth=1_seed1, depth=4_seed0" in printed
    assert "Missing, and in no mean (4)" in printed and "| 90.00 ± 0.00 |" in printed


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    found = sweep(tmp_path, "model.depth=8,16")
    conduct(found, program(tmp_path), jobs=2)
    before = {run.name: log_of(found, run).stat().st_mtime_ns for run in found.runs}
    (found.runs[2].certificate / "certificate.json").unlink()
    assert len(conduct(found, program(tmp_path), jobs=2).finished) == 4
    after = {run.name: log_of(found, run).stat().st_mtime_ns for run in found.runs}
    assert [name for name in before if before[name] != after[name]] == [found.runs[2].name]


def test_a_run_is_over_when_the_last_of_its_processes_is(tmp_path: Path) -> None:
    began = time.monotonic()
    assert conduct(sweep(tmp_path, "model.depth=3", seeds=(0,)), program(tmp_path), 1).finished
    assert time.monotonic() - began > 1


def test_a_run_that_an_earlier_sweep_left_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = sweep(tmp_path, "model.depth=8", seeds=(0, 1))
    words = program(tmp_path)
    first = [*command_of(found.runs[0], words, found.source), "--model.depth=3"]
    found.directory.mkdir()
    RunProcess(first, log_of(found, found.runs[0]), {})
    killed = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    RunProcess(killed, log_of(found, found.runs[1]), {})
    assert len(conduct(found, words, jobs=2).finished) == 2
    printed = capsys.readouterr().out
    assert printed.count("an earlier start of it that still goes on") == 2
    assert log_of(found, found.runs[0]).read_text().count("$ ") == 1
    assert log_of(found, found.runs[1]).read_text().count("$ ") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_makes_the_runs_save(
    tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    found = sweep(tmp_path, "model.depth=2,8", seeds=(0, 1))
    directories = [run.config.directory for run in found.runs]

    def send() -> None:
        while not all((directory / "started").exists() for directory in directories[:2]):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    inherited = signal.getsignal(number)
    if inherited is signal.SIG_IGN:  # the tests run under nohup, or in the background of a script
        signal.signal(number, signal.SIG_DFL)
    before = signal.getsignal(number)
    sender = threading.Thread(target=send)
    sender.start()
    outcome = conduct(found, program(tmp_path), jobs=2)
    sender.join()
    assert outcome.interrupted and not outcome.failed and not outcome.finished
    assert all((directory / "saved").exists() for directory in directories[:2])
    assert not any(directory.exists() for directory in directories[2:]), "nothing new is started"
    assert "interrupted with 4 runs left" in capsys.readouterr().out
    assert signal.getsignal(number) is before
    signal.signal(number, inherited)


def test_nohup_is_heeded_and_a_background_job_can_be_interrupted() -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (SIGHUP, SIGINT)}
    try:
        with StopRequests() as stop:
            os.kill(os.getpid(), SIGHUP)
            assert not stop.asked and not stop.is_new()
            os.kill(os.getpid(), SIGINT)
            assert stop.asked and stop.is_new() and not stop.is_new()
        assert signal.getsignal(SIGINT) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_error_of_the_sweep_itself_leaves_no_run_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sweep(tmp_path, "model.depth=2", seeds=(0,))
    directory = found.runs[0].config.directory

    def draw(*_: object) -> None:
        if (directory / "started").exists():
            raise OSError("no space left on device")

    monkeypatch.setattr("pipeline.sweep.display.Display.show", draw)
    with pytest.raises(OSError, match="no space left"):
        conduct(found, program(tmp_path), jobs=1)
    assert (directory / "saved").exists()


def test_editing_the_config_meanwhile_changes_nothing(tmp_path: Path) -> None:
    found = sweep(tmp_path, seeds=(0,))
    conduct(found, program(tmp_path), jobs=1)
    assert found.config_copy.read_bytes() == found.source.read_bytes()
    first_line = found.source.read_text().split("\n")[0]
    assert f"config {first_line}" in log_of(found, found.runs[0]).read_text()
    assert str(found.config_copy) in log_of(found, found.runs[0]).read_text()
