"""Processes of runs: locks, logs, GPUs, launchers."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.sweep.processes import RunProcess, devices_of, ending, last_lines, launcher
from pipeline.sweep.stop import StopRequests

PYTHON = [sys.executable, "-c"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_output_and_status(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    for _ in range(2):
        code = "import os; print(os.environ['X'], '1%\\r2%', end=''); raise SystemExit(5)"
        process = RunProcess([*PYTHON, code], log, {"X": "seen"})
        wait_for(lambda process=process: not process.is_running())
        assert process.is_ours and process.status == 5
    assert log.read_bytes().count(b"\nseen 1%\r2%") == 2, "a log is appended to"
    assert log.read_text().count("\n$ ") == 1 and last_lines(log, 9)[1:] == ["2%"]


def test_what_a_run_started_holds_the_log(tmp_path: Path) -> None:
    """As after a SIGKILL of the sweep: nobody starts it a second time."""
    log, go = tmp_path / "a.log", tmp_path / "go"
    child = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    first = RunProcess([*PYTHON, parent], log, {})
    wait_for(lambda: first.is_running() and first.status == 0)
    second = RunProcess([*PYTHON, "print('second')"], log, {})
    assert not second.is_ours and second.is_running() and second.status is None
    go.touch()
    wait_for(lambda: not first.is_running())
    assert not second.is_running() and "second" not in last_lines(log, 5)


def test_an_interrupt_reaches_every_process_of_the_run(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    wait = (  # the command stands in the log, so it must not have the words in it
        "try:\n"
        "    print('rea' + 'dy', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('sa' + 'ved', flush=True)\n"
    )
    child = f"import time\n{wait}"
    start_child = f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
    parent = f"import subprocess, sys, time\n{start_child}{wait}"
    with StopRequests():
        process = RunProcess([*PYTHON, parent], log, {})
    wait_for(lambda: log.read_text().count("ready") == 2)
    process.interrupt()
    wait_for(lambda: not process.is_running())
    assert log.read_text().count("saved") == 2


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("$ old\nold\n$ new\n\ntrain: 1%\rtrain: 2%\r\n\nerror: x\n" + "tail\n" * 3)
    assert last_lines(log, 99) == ["$ new", "train: 2%", "error: x", "tail", "tail", "tail"]
    assert last_lines(log, 2) == ["tail", "tail"]
    log.write_text("$ new\n" + "x" * 10**6 + "\nend\n")
    assert last_lines(log, 1) == ["end"]


def test_statuses_in_words() -> None:
    assert ending(1) == "exit status 1"
    assert ending(-9) == "killed by SIGKILL (out of memory?)"
    assert ending(-11) == "killed by SIGSEGV"


@pytest.mark.parametrize(
    ("jobs", "devices", "shares"),
    [
        (1, "01234567", [None]),
        (2, "", [None, None]),
        (2, "01234567", ["0,1,2,3", "4,5,6,7"]),
        (8, "01234567", list("01234567")),
        (3, "01234567", ["0,1", "2,3", "4,5"]),
        (4, "57", ["5", "7", "5", "7"]),
    ],
)
def test_gpus_are_divided_among_jobs(jobs: int, devices: str, shares: list) -> None:
    found = [
        devices_of(slot, jobs, list(devices)).get("CUDA_VISIBLE_DEVICES") for slot in range(jobs)
    ]
    assert found == shares


def test_launchers() -> None:
    assert launcher("") == [sys.executable]
    beside = Path(sys.executable).with_name("accelerate")
    assert launcher("accelerate launch --num_processes 8") == [
        str(beside), "launch", "--num_processes", "8",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="there is no program 'acelerate'"):
        launcher("acelerate launch")
