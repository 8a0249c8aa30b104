"""The end of an attempt: is the run finished, refused, or to be started again? Decided only here.

The batch script's EXIT trap calls `python -m pipeline.launchers.afterwards JOB_FOLDER STATUS` after
srun has ended, when no rank lives any more. Its TERM trap calls it with TERM, since after a SIGTERM
there may be no more time: if SLURM is ending the job, that is judged at once, and otherwise nothing
is. `local.py` calls `decide` after its own processes.

Notable:
- It judges by what each rank left, and not by srun's status: a job can end COMPLETED although a
  rank was lost.
- A job that a person cancelled is not started again, and neither is one whose mistake would only be
  repeated. Three attempts in a row that broke down without getting any further are the last.
- Where SLURM itself has put the job back (a node was lost) there is nothing to do.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.launchers import scheduler
from pipeline.launchers.folder import JobFolder, attempt_name
from pipeline.launchers.scheduler import JobFacts, SchedulerError
from pipeline.training import attempts

FINISHED, REFUSED, INTERRUPTED = 0, 1, 130  # of pipeline.outcome.Exit, which would load torch
TRIES_OF_ANY_KIND = 10
"""As `attempts.TRIES`, for those that left when they were told: the time limit is too short."""

Verdict = Literal["finished", "refused", "cancelled", "taken", "request", "fault", "given up"]


@dataclass(frozen=True)
class Decision:
    """How an attempt ended."""

    verdict: Verdict
    what: str
    """One sentence."""

    @property
    def again(self) -> bool:
        """The run is to be started again, and nobody else does it."""
        return self.verdict in {"request", "fault"}


def decide(folder: JobFolder, attempt: str, job: JobFacts | None = None) -> Decision:
    """Judge an attempt of which no rank lives any more, and record it.

    Args:
        folder: of the submission.
        attempt: see `attempt_name`.
        job: what SLURM says now; None without SLURM.
    """
    facts = folder.facts()
    progress = progress_of(Path(facts["run_directory"]))
    decision = _judge(folder, attempt, int(facts["tasks"]), job)
    if decision.again and (why := _hopeless(folder, decision, progress)):
        decision = Decision(
            "given up", f"{why} came no further than {progress}; the last one: {decision.what}"
        )
    with suppress(OSError):  # a full disk keeps nobody from starting the run again
        folder.record(
            "ended",
            attempt=attempt,
            verdict=decision.verdict,
            what=decision.what,
            progress=progress,
        )
    return decision


def progress_of(run_directory: Path) -> str:
    """How far a run is, in what is safe on disk; equal texts mean that nothing was added."""
    step, pieces = attempts.progress_of(run_directory)
    text = f"step {step}" if step else "the beginning"
    drawing = (run_directory / attempts.DRAWING).is_file()
    what = "drawn batches" if drawing else "certified layers and blocks"
    return f"{text} and {pieces} {what}" if pieces else text


def _hopeless(folder: JobFolder, decision: Decision, progress: str) -> str | None:
    """Who came no further, if starting again promises nothing."""
    verdicts: list[str] = [decision.verdict]  # since there was progress, the newest first
    for row in reversed(folder.history()):
        if row["event"] == "ended":
            if row["progress"] != progress:
                break
            verdicts.append(row["verdict"])
    tries = attempts.TRIES
    if verdicts[:tries] == ["fault"] * tries:
        return f"{tries} attempts in a row broke down and"
    return f"{len(verdicts)} attempts in a row" if len(verdicts) >= TRIES_OF_ANY_KIND else None


def _judge(folder: JobFolder, attempt: str, tasks: int, job: JobFacts | None) -> Decision:
    statuses = folder.statuses(attempt)
    if len(statuses) == tasks and set(statuses) and set(statuses.values()) == {FINISHED}:
        return Decision("finished", "finished")
    if REFUSED in statuses.values():
        refused = [rank for rank, status in statuses.items() if status == REFUSED]
        errors = filter(None, (_error(folder.log(attempt, rank)) for rank in refused))
        # Ranks that only heard of it say "rank 3 on node1 ended:" before the same sentence.
        what = min(errors, key=len, default=f"rank {refused[0]} refused")
        return Decision("refused", what)
    if INTERRUPTED in statuses.values():
        return Decision("cancelled", "interrupted by Ctrl-C")
    if job is not None and (taken := _taken(job, attempt)):
        return taken
    if job is not None and job.was_preempted:  # perhaps with no time to leave a word
        return Decision("request", "preempted by SLURM")
    # One rank says for all what the heartbeat found, or what went wrong in passing.
    said = next(filter(None, (_error(folder.log(attempt, rank)) for rank in range(tasks))), None)
    silent = sorted(set(range(tasks)) - set(statuses))
    if silent:
        return Decision("fault", said or f"{_ranks(silent)} ended without a word (killed, or lost)")
    crashed = [
        rank for rank, status in statuses.items() if status not in (FINISHED, os.EX_TEMPFAIL)
    ]
    if crashed:
        status = statuses[crashed[0]]
        return Decision("fault", f"{_ranks(crashed)} crashed with exit status {status}")
    return Decision("fault", said) if said else Decision("request", "left early and saved")


def _taken(job: JobFacts, attempt: str) -> Decision | None:
    """Whether SLURM is ending the job itself for a reason that forbids starting it again here."""
    if job.state == "RUNNING" or job.was_preempted:
        return None
    left = job.seconds_left
    if left is not None and left <= 0:
        return None  # the time limit
    if job.restarts > int(attempt.rpartition(".")[2]) or job.state in {"PENDING", "REQUEUED"}:
        return Decision("taken", "SLURM has put the job back into the queue")
    try:
        lost = scheduler.lost_nodes(job.nodes) if job.nodes else []
    except SchedulerError:
        lost = []
    if lost:
        if job.fields.get("Requeue") == "1":
            return Decision("taken", f"node {lost[0]} was lost, and SLURM requeues the job")
        return None
    return Decision("cancelled", "cancelled by scancel")


def _error(log: Path) -> str | None:
    """The sentence that a rank left with."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return next(
        (ln.removeprefix("error: ") for ln in reversed(lines) if ln.startswith("error: ")), None
    )


def _ranks(ranks: list[int]) -> str:
    """`rank 3`, or `ranks 0, 1, 2 and 29 more`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(map(str, ranks[:3]))
    return f"ranks {shown}" + (f" and {len(ranks) - 3} more" if len(ranks) > 3 else "")


def start_again(folder: JobFolder, job: str, decision: Decision) -> str:
    """Requeue the job, or submit another in its place; the sentence that says which.

    Raises:
        SchedulerError: neither was possible.
    """
    if folder.facts()["requeue"]:
        try:
            folder.record("requeued", job=job)  # before: it ends this very process
            scheduler.requeue(job)
            return f"job {job} goes back into the queue"
        except SchedulerError as error:
            if "pending" in str(error):
                return f"job {job} is in the queue already"
            print(f"afterwards: requeue refused ({error}); submitting another job", flush=True)
    script = folder.path / f"{job}_submission.sh"
    successor = scheduler.submit(script, after=job)
    # submitit's task waits a minute for a pickle that is called as its job.
    for name in ("submission.sh", "submitted.pkl"):
        temporary = folder.path / f".{successor}_{name}"
        shutil.copyfile(folder.path / f"{job}_{name}", temporary)
        temporary.replace(folder.path / f"{successor}_{name}")
    folder.record("submitted", job=successor, after=job)
    return f"job {successor} takes the place of {job}"


def main(words: list[str]) -> int:
    """What the batch script calls: judge its attempt, and start the run again if that helps."""
    folder, status = JobFolder(Path(words[0])), words[1]
    job = os.environ["SLURM_JOB_ID"]
    attempt = attempt_name(job, int(os.environ.get("SLURM_RESTART_COUNT") or 0))
    try:
        facts = scheduler.show(job)
        if facts is not None:  # by now SLURM may have taken lost nodes off its list
            nodes = os.environ.get("SLURM_JOB_NODELIST", facts.nodes)
            facts = JobFacts({**facts.fields, "NodeList": nodes})
    except SchedulerError as error:
        print(f"afterwards: {error}", flush=True)
        facts = None
    if status == "TERM" and (facts is None or facts.state == "RUNNING"):
        return 0  # announced only, as preemption with a grace time is: the ranks are leaving
    if any(row.get("attempt") == attempt for row in folder.history()):
        return 0  # judged when the SIGTERM came
    decision = decide(folder, attempt, facts)
    print(f"afterwards: attempt {attempt}: {decision.what} (srun: {status})", flush=True)
    if decision.again:
        try:
            print(f"afterwards: {start_again(folder, job, decision)}", flush=True)
        except (SchedulerError, OSError) as error:
            what = f"could be neither requeued nor submitted again ({error})"
            folder.record("ended", attempt=attempt, verdict="given up", what=what, progress="")
            print(f"afterwards: {what}", flush=True)
            return 1
    return 0 if decision.verdict == "finished" or decision.again else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
