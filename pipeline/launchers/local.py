"""The same job on this machine: `--local` starts as many processes as SLURM would start tasks.

Notable: what an attempt came to is decided by the same code as under SLURM, and a run that was left
early is started again by the same rules. SIGUSR2 here is what preemption is there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.config import RunConfig
from pipeline.launchers.afterwards import INTERRUPTED, decide
from pipeline.launchers.folder import JobFolder, attempt_name
from pipeline.launchers.follow import report
from pipeline.launchers.snapshot import ROOT
from pipeline.progress import say

JOB = "local"
GRACE_SECONDS = 30.0
"""What the other ranks are given to leave after one has ended badly; SLURM's KillWait."""


def check_machine(config: RunConfig) -> None:
    """Ranks cannot share a GPU.

    Raises:
        ValueError: this machine has GPUs, and fewer than there are tasks.
    """
    import torch

    gpus, tasks = torch.cuda.device_count(), config.cluster.tasks
    if 0 < gpus < tasks:
        raise ValueError(
            f"--local starts {tasks} tasks (cluster.nodes {config.cluster.nodes}) and this machine "
            f"has {gpus} GPUs: take --nodes 1 --gpus-per-node {gpus}"
        )


def run_here(config: RunConfig, folder: JobFolder) -> int:
    """Run the job to its end, starting it again as often as that helps; the exit status."""
    folder.record("submitted", job=JOB)
    restarts = 0
    while True:
        attempt = attempt_name(JOB, restarts)
        processes = _start(config, folder, attempt)
        with _passed_on(processes) as received:
            _wait(processes, folder.log(attempt, 0))
        decision = decide(folder, attempt)
        if not decision.again:
            status = report(config, decision.verdict, decision.what)
            return INTERRUPTED if decision.verdict == "cancelled" else status
        if signal.SIGTERM in received:
            say("stopped and saved; the same command goes on from there")
            return os.EX_TEMPFAIL
        say(f"attempt {attempt}: {decision.what}; starting again")
        restarts += 1


def _start(config: RunConfig, folder: JobFolder, attempt: str) -> list[subprocess.Popen[bytes]]:
    """All ranks of an attempt."""
    tasks = config.cluster.tasks
    code = folder.code if config.cluster.snapshot else ROOT
    common = {
        **os.environ,
        **config.cluster.environment,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")])),
        "WORLD_SIZE": str(tasks),
        "LOCAL_WORLD_SIZE": str(tasks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    words = [sys.executable, "-P", "-u", "-m", "pipeline.launchers.job", str(folder.path), attempt]
    return [
        subprocess.Popen(
            words,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C comes through us, once
        )
        for rank in range(tasks)
    ]


def _wait(processes: list[subprocess.Popen[bytes]], log: Path) -> None:
    """Until all have ended; meanwhile show what rank 0 prints. One bad end is the end of all."""
    shown, ended = 0, None
    while True:
        alive = [process for process in processes if process.poll() is None]
        if log.is_file():
            with log.open("rb") as file:
                file.seek(shown)
                text = file.read()
            shown += len(text)
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
        if not alive:
            return
        if ended is None and any(process.returncode for process in processes):
            ended = time.monotonic()
            _signal(alive, signal.SIGTERM)
        if ended is not None and time.monotonic() - ended > GRACE_SECONDS:
            _signal(alive, signal.SIGKILL)
        time.sleep(0.1)


@contextmanager
def _passed_on(processes: list[subprocess.Popen[bytes]]) -> Iterator[set[int]]:
    """Signals to this process go to every rank; yields those that came."""
    received: set[int] = set()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.add(number)
        _signal([process for process in processes if process.poll() is None], number)

    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, pass_on)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(processes: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
