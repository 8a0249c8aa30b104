"""One run as a process of its own: started, watched, interrupted.

Notable:
- A run has a session of its own, so Ctrl-C at the terminal reaches the sweep alone, which passes it
  on to every process of every run; each saves and leaves.
- The log is the lock. It is opened, locked (flock) and handed to the run as its output, so the lock
  is held until the last process that the run started has gone, whatever became of the sweep. After
  a SIGKILL of the sweep its runs go on by themselves, and the next sweep waits for them instead of
  starting a second one into the same directory.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

_GRACE_SECONDS = 120.0
"""What processes that outlive their launcher are given to save and leave."""
_TAIL_BYTES = 16384
_PROMPT = "$ "
"""Before the command that a start begins with in the log."""


class RunProcess:
    """A started run, or one of an earlier sweep that still goes on.

    Args:
        command: the program and its arguments.
        log: appended to.
        environment: changes to this process's own.

    Raises:
        OSError: the log cannot be written or the program not started.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._left: float | None = None
        self.began = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            if not _lock(file.fileno()):
                return
            # A killed run ends in the middle of a line.
            start = f"\n{_PROMPT}" if file.tell() else _PROMPT
            file.write(f"{start}{shlex.join(command)}\n".encode())
            file.flush()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def is_ours(self) -> bool:
        """False for a run that an earlier sweep started and that still goes on."""
        return self._process is not None

    @property
    def status(self) -> int | None:
        """As `subprocess.Popen.returncode`; None for a run that is not ours."""
        return self._process.returncode if self._process is not None else None

    def is_running(self) -> bool:
        """Whether any process of the run is left."""
        if self._process is not None:
            if self._process.poll() is None:
                return True
            self._left = self._left or time.monotonic()
            if time.monotonic() - self._left > _GRACE_SECONDS:
                self._signal(signal.SIGKILL)
                return False
        with self._log.open("ab") as file:
            return not _lock(file.fileno())

    def interrupt(self) -> None:
        """What Ctrl-C does at a terminal: SIGINT to the launcher and all it started."""
        self._signal(signal.SIGINT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _lock(descriptor: int) -> bool:
    """Lock the open file; False if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing can be known of earlier starts
        return True
    return True


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log: of the last start, no blank lines, nothing that a bar has overwritten."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = [re.split(r"\r(?!$)", line)[-1].rstrip() for line in text.split("\n")]
    started = max((i for i, line in enumerate(lines) if line.startswith(_PROMPT)), default=0)
    return [line for line in lines[started:] if line][-count:]


def ending(status: int) -> str:
    """A process's exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def devices_of(slot: int, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    """Environment that divides the GPUs among jobs at a time; the k-th job gets the k-th share.

    Args:
        slot: which of the jobs, 0 to jobs - 1.
        jobs: how many run at a time; 1 gets all.
        devices: names of the visible GPUs, as in CUDA_VISIBLE_DEVICES.
    """
    if jobs == 1 or not devices:
        return {}
    each = len(devices) // jobs
    mine = devices[slot * each : (slot + 1) * each] if each else [devices[slot % len(devices)]]
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def launcher(words: str) -> list[str]:
    """The program that starts a run: `words`, or without any this Python.

    Programs beside this Python are found first, so that `accelerate launch` is that of the same
    environment although it was not activated.

    Raises:
        ValueError: there is no such program.
    """
    parts = shlex.split(words)
    if not parts:
        return [sys.executable]
    beside = str(Path(sys.executable).parent)
    found = shutil.which(parts[0], path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise ValueError(f"--launcher {words!r}: there is no program {parts[0]!r}")
    return [found, *parts[1:]]
