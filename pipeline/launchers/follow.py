"""Watching a job from the terminal that submitted it, or from any other: `--follow`.

Notable: it reads what the job leaves (metrics.jsonl, history.jsonl) and asks SLURM for the state;
it has no part in the job, and Ctrl-C ends the watching only.
"""

from __future__ import annotations

import os
import time
from typing import Any

from pipeline.certify import read_certificate
from pipeline.certify.reporting.tables import text_table
from pipeline.config import RunConfig
from pipeline.launchers import scheduler
from pipeline.launchers.folder import JobFolder
from pipeline.launchers.scheduler import SchedulerError
from pipeline.progress import ProgressBar, say
from pipeline.sweep.watch import last_rows

SECONDS_BETWEEN_LOOKS = 2.0
GONE_LOOKS = 8
"""Looks at a job that SLURM has ended, before its judgement is no longer waited for."""
STATUS = {"finished": 0, "refused": 1, "given up": 1, "cancelled": os.EX_TEMPFAIL}
"""Exit status by verdict, as `pipeline.outcome.Exit` has them."""


def follow(config: RunConfig, folder: JobFolder) -> int:
    """Show how a job gets on, through requeues and successors, and what comes out.

    Returns:
        The exit status: 0 with a certificate, 1 refused or given up, 75 cancelled.
    """
    watch = _Watch(config, folder)
    try:
        while (status := watch.look()) is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        watch.close()
    return status


def report(config: RunConfig, verdict: str, what: str) -> int:
    """Say how a run ended; the exit status."""
    if verdict == "finished":
        certificate = config.directory / "certificate"
        if (certificate / "certificate.json").is_file():
            say(text_table(read_certificate(certificate)))
            say(f"finished: {certificate}")
        else:
            say(f"finished: {config.directory}")
    elif verdict == "cancelled":
        say(f"{what}: the same command goes on from the last checkpoint")
    else:
        say(f"error: {what}")
    return STATUS.get(verdict, 1)


class _Watch:
    """What was seen and said so far."""

    def __init__(self, config: RunConfig, folder: JobFolder) -> None:
        self._config, self._folder = config, folder
        self._rows = len(folder.history())
        self._state = ""
        self._gone = 0
        self._bar: ProgressBar | None = None
        self._shown = 0
        self._total: int | None = None

    def look(self) -> int | None:
        """Say what is new; the exit status if there is nothing more to wait for."""
        self._show_progress()
        rows = self._folder.history()
        for row in rows[self._rows :]:
            self._rows += 1
            if row["event"] == "ended":
                self._gone = 0
                if row["verdict"] in STATUS:
                    self.close()
                    return report(self._config, row["verdict"], row["what"])
                say(f"attempt {row['attempt']}: {row['what']}; safe: {row['progress']}")
            elif row["event"] == "submitted" and "after" in row:
                say(f"job {row['job']} takes the place of {row['after']}")
        job = self._folder.job()
        assert job is not None, "a job that is followed was submitted"
        return self._show_state(job)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def _show_state(self, job: str) -> int | None:
        try:
            facts = scheduler.show(job)
        except SchedulerError:  # a controller that restarts: the job does not mind
            return None
        state = "gone" if facts is None else facts.state
        text = state
        if facts is not None:
            reason = facts.fields.get("Reason", "None")
            text += f" ({reason})" if state == "PENDING" and reason != "None" else ""
            text += f" on {facts.nodes}" if state == "RUNNING" else ""
        if text != self._state:
            say(f"job {job}: {text}")
            self._state = text
        self._gone = 0 if facts is not None and facts.is_alive else self._gone + 1
        # The batch script was killed before it could judge, or what it wrote is not yet seen here.
        if state == "CANCELLED" and self._gone > 1:
            return report(self._config, "cancelled", f"job {job} was cancelled")
        if self._gone < GONE_LOOKS:
            return None
        return report(
            self._config,
            "given up",
            f"job {job} ended as {state} and nobody could start it again; the same command goes on "
            "from the last checkpoint",
        )

    def _show_progress(self) -> None:
        newest: dict[str, Any] | None = None
        training = self._config.training
        for row in last_rows(self._config.directory / "metrics.jsonl"):
            if row["kind"] == "step":
                newest = newest or row
            elif self._total is None:
                steps = row["step"] // (row["epoch"] + 1)
                self._total = training.total_steps(steps)
                self.close()  # one with a total takes its place
        if newest is None or newest["step"] == self._shown:
            return
        if newest["step"] < self._shown:  # it went on from an earlier checkpoint
            self.close()
            self._shown = newest["step"]
        if self._bar is None:
            self._bar = ProgressBar("train", self._total, "step", initial=self._shown)
            self._bar.__enter__()
        numbers = {
            "epoch": f"{newest['epoch'] + 1}" + ("" if training.steps else f"/{training.epochs}"),
            "loss": "not finite" if newest["loss"] is None else f"{newest['loss']:.3f}",
        }
        if "clean_accuracy" in newest:  # not of a generator
            numbers["clean"] = f"{newest['clean_accuracy']:.1%}"
        self._bar.advance(newest["step"] - self._shown, **numbers)
        self._shown = newest["step"]
