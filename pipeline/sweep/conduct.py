"""Runs a sweep's runs, several at a time, and writes the tables.

Notable:
- A failed run is named with the end of its log, and the others go on.
- Ctrl-C, SIGTERM and a lost terminal are passed on to the runs as Ctrl-C, which makes them save;
  nothing new is started. A second Ctrl-C is passed on too: the runs leave at once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.certify.block_store import write_atomically
from pipeline.sweep.display import Display, Row, State
from pipeline.sweep.grid import Point
from pipeline.sweep.plan import Run, Sweep, is_finished
from pipeline.sweep.processes import (
    RunProcess,
    devices_of,
    ending,
    last_lines,
    visible_devices,
)
from pipeline.sweep.stop import StopRequests
from pipeline.sweep.tables import write_results, write_summary
from pipeline.sweep.watch import in_words, progress, result, seconds_left

_POLL_SECONDS = 0.25
_LOG_LINES = 15


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended."""

    finished: list[str]
    failed: list[str]
    interrupted: bool


@dataclass
class _Job:
    """A run and what became of it."""

    run: Run
    state: State = "waiting"
    text: str = ""
    slot: int = 0
    resumed: bool = False
    process: RunProcess | None = field(default=None, repr=False)


def conduct(sweep: Sweep, program: Sequence[str], jobs: int) -> Outcome:
    """Start every run that is not finished, and wait for all.

    Args:
        sweep: from `plan`.
        program: the launcher and launch/train.py.
        jobs: runs at a time; the visible GPUs are divided among them.

    Returns:
        What finished, also before, and what failed.

    Raises:
        OSError: the sweep's directory cannot be written, or the program not started.
        ValueError: as `write_summary`.
    """
    write_atomically(sweep.config_copy, sweep.source.read_bytes())
    return _Conductor(sweep, program, jobs).go()


def log_of(sweep: Sweep, run: Run) -> Path:
    """Where the output of a run goes."""
    return sweep.directory / "logs" / f"{run.name}.log"


def command_of(run: Run, program: Sequence[str], config: Path) -> list[str]:
    """The command of a run."""
    return [*program, "--config", str(config), *run.overrides]


class _Conductor:
    def __init__(self, sweep: Sweep, program: Sequence[str], jobs: int) -> None:
        self._sweep, self._program, self._at_once = sweep, program, jobs
        self._devices = visible_devices()
        self._display = Display()
        self._durations: dict[Point, list[float]] = defaultdict(list)
        self._stop = StopRequests()
        self._jobs = [_Job(run) for run in sweep.runs]
        for job in self._jobs:
            if is_finished(job.run):
                job.state, job.text = "done", result(job.run)

    def go(self) -> Outcome:
        """The whole sweep."""
        sweep = self._sweep
        self._display.say(
            f"sweep {sweep.name}: {len(sweep.runs)} runs, {self._at_once} at a time; logs in "
            f"{sweep.directory / 'logs'}"
        )
        with self._stop:
            try:
                while self._active() or (self._waiting() and not self._stop.asked):
                    self._pass_on()
                    self._collect()
                    if not self._stop.asked:
                        self._start()
                    self._draw()
                    time.sleep(_POLL_SECONDS)
            finally:
                self._leave_none_behind()
        for job in self._waiting():
            job.state = "stopped"
        self._draw()
        return self._report()

    def _report(self) -> Outcome:
        """Write and print the tables, and say what is left to do."""
        write_results(self._sweep)
        text = write_summary(self._sweep)
        names = {
            state: [job.run.name for job in self._jobs if job.state == state]
            for state in ("done", "failed")
        }
        if names["done"]:
            print(f"\n{text}\ntables: {self._sweep.directory}/summary.md")
        left = [job for job in self._jobs if job.state == "stopped"]
        if names["failed"]:
            print(f"failed: {', '.join(names['failed'])}; the same command tries them again")
        if left:
            print(f"interrupted with {len(left)} runs left: the same command goes on with them")
        return Outcome(names["done"], names["failed"], interrupted=bool(left))

    def _active(self) -> list[_Job]:
        return [job for job in self._jobs if job.state == "running"]

    def _waiting(self) -> list[_Job]:
        return [job for job in self._jobs if job.state == "waiting"]

    def _start(self) -> None:
        """Fill the free slots."""
        free = sorted(set(range(self._at_once)) - {job.slot for job in self._active()})
        for slot, job in zip(free, self._waiting(), strict=False):
            run = job.run
            job.resumed = (run.config.directory / "metrics.jsonl").exists()
            job.process = RunProcess(
                command_of(run, self._program, self._sweep.config_copy),
                log_of(self._sweep, run),
                devices_of(slot, self._at_once, self._devices),
            )
            job.slot, job.state = slot, "running"

    def _collect(self) -> None:
        """Take note of runs that have ended."""
        for job in self._active():
            process = job.process
            assert process is not None
            if process.is_running():
                continue
            if is_finished(job.run):
                job.state, job.text = "done", result(job.run)
                if process.is_ours and not job.resumed:
                    self._durations[job.run.point].append(time.monotonic() - process.began)
                job.text += f", {in_words(time.monotonic() - process.began)}"
                write_results(self._sweep)
            elif self._stop.asked:
                job.state, job.text = "stopped", progress(job.run)
            elif not process.is_ours:
                job.state = "waiting"  # an earlier sweep's, stopped before its end
            else:
                self._failed(job, process.status or 0)

    def _failed(self, job: _Job, status: int) -> None:
        log = log_of(self._sweep, job.run)
        reason = ending(status) if status else "it ended without a certificate"
        lines = last_lines(log, _LOG_LINES)
        job.state, job.text = (
            "failed",
            f"{reason}: {lines[-1].removeprefix('error: ')}",
        )  # its first line is the command
        shown = "".join(f"\n  | {line}" for line in lines)
        self._display.say(f"{job.run.name} failed, {reason}; the end of {log}:{shown}")

    def _pass_on(self) -> None:
        """Interrupt the runs once for every signal that came."""
        if not self._stop.is_new():
            return
        self._display.say("stopping: the runs save and leave (once more: they leave at once)")
        for job in self._active():
            assert job.process is not None
            job.process.interrupt()
            if not job.process.is_ours:
                job.state, job.text = "stopped", "an earlier start of it goes on"

    def _leave_none_behind(self) -> None:
        """After an error of the sweep itself: the runs save and leave before it is raised."""
        started = [job.process for job in self._active() if job.process and job.process.is_ours]
        for process in started:
            process.interrupt()
        while any(process.is_running() for process in started):
            time.sleep(_POLL_SECONDS)

    def _draw(self) -> None:
        rows = []
        for job in self._jobs:
            text = job.text
            if job.process and job.state == "running":
                seconds = time.monotonic() - job.process.began
                text = f"{progress(job.run)}, {in_words(seconds)}"
                if not job.process.is_ours:
                    text += ", an earlier start of it that still goes on"
            rows.append(Row(job.run.name, job.state, text))
        self._display.show(rows, self._last_line())

    def _last_line(self) -> str:
        states = [job.state for job in self._jobs]
        words = [f"{states.count('done')} of {len(states)} runs done"]
        words += [f"{states.count('failed')} failed"] if "failed" in states else []
        now = time.monotonic()
        running = [
            (job.run.point, now - job.process.began) for job in self._active() if job.process
        ]
        left = seconds_left(
            self._durations, [job.run.point for job in self._waiting()], running, self._at_once
        )
        if running and left is not None and not self._stop.asked:
            words.append(f"about {in_words(left)} left")
        return ", ".join(words)
