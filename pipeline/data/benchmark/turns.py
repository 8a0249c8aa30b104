"""Throughput of the training loaders against torch's DataLoader with PIL, interleaved in one run.

Notable:
- Round by round every contender gives a slice of batches in turn, in another order each round, so
  that whatever else the machine does falls on all of them. Medians and ranges are over rounds.
- While one works the others stand still: their queues are full before a slice begins (`_settle`),
  and what was built ahead is thrown away before the clock starts.
- All read the same samples in the same batches (`order.py`), without a break between epochs, and
  give uint8 images [B, C, H, W]. The pictures are not the same size in a folder and in the .beton
  files written from it; that is what writing them is for.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

from pipeline.data.benchmark.contenders import Contender, Settings, open_contenders
from pipeline.progress import ProgressBar

_BUSY = 0.1
"""Share of a core from which the process is not at rest."""
_LOOK_SECONDS, _LONGEST_SECONDS = 0.1, 20.0
"""Length of a look at it, and when to give up waiting."""


def measure(settings: Settings) -> list[Contender]:
    """Open every contender, and take turns.

    Raises:
        ValueError: settings out of range, no such data, a file that FFCV is needed for.
    """
    _check(settings)
    contenders: list[Contender] = []
    try:
        contenders.extend(open_contenders(settings))
        with ProgressBar("benchmark", settings.rounds * len(contenders), "slice") as bar:
            for number in range(settings.rounds):
                turn = number % len(contenders)
                for contender in contenders[turn:] + contenders[:turn]:
                    _slice(contender, settings)
                    bar.advance(loader=contender.name)
    finally:
        for contender in contenders:
            contender.close()
            contender.batches = iter(())  # ends the worker processes of a DataLoader
    return contenders


def _check(settings: Settings) -> None:
    cores = len(os.sched_getaffinity(0))
    for count in settings.workers:
        if not 1 <= count <= cores:
            raise ValueError(f"--workers {count} must be from 1 to the {cores} cores there are")
    for name in ("size", "batch_size", "batches", "rounds"):
        if getattr(settings, name) < 1:
            word = name.replace("_", "-")
            raise ValueError(f"--{word} {getattr(settings, name)} must be at least 1")


def _slice(contender: Contender, settings: Settings) -> None:
    """One contender's turn."""
    _settle()
    for _ in range(contender.ahead):
        next(contender.batches)
    began, cpu = time.perf_counter(), _cpu_seconds()
    for _ in range(settings.batches):
        next(contender.batches)
    seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
    images = settings.batches * settings.batch_size
    contender.images_per_second.append(images / seconds)
    contender.images_per_cpu_second.append(images / cpu)


def _settle() -> None:
    """Wait until nothing is built ahead any more."""
    for _ in range(int(_LONGEST_SECONDS / _LOOK_SECONDS)):
        before = _cpu_seconds()
        time.sleep(_LOOK_SECONDS)
        if _cpu_seconds() - before < _BUSY * _LOOK_SECONDS:
            return


def _cpu_seconds() -> float:
    """CPU time of this process with all threads, and of its worker processes."""
    tick = os.sysconf("SC_CLK_TCK")
    total = time.process_time()
    for child in multiprocessing.active_children():
        stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(stat[11]) + int(stat[12])) / tick  # utime and stime
    return total
