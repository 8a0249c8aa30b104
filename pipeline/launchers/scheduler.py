"""What SLURM says and is told, through its own commands; no library, no accounting database needed.

Notable: a job that is being ended for whatever reason has the state COMPLETING as long as its batch
script lives, so whether a person cancelled it has to be concluded from what else SLURM says.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 60
"""For one answer of the controller, which can be busy."""
_GONE = {"down", "drained", "fail", "failed", "failing", "no_respond", "not_responding", "error"}


class SchedulerError(Exception):
    """A command of SLURM failed; the message is what it said."""


def is_here() -> bool:
    """Whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def call(*words: str, environment: dict[str, str] | None = None) -> str:
    """Run a command of SLURM and return what it prints.

    Raises:
        SchedulerError: it failed, is not there, or did not answer.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_SECONDS, env=environment
        )
    except FileNotFoundError:
        raise SchedulerError(f"there is no {words[0]} on PATH") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{words[0]} did not answer within {_SECONDS} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise SchedulerError(lines[-1] if lines else f"{words[0]} failed ({done.returncode})")
    return done.stdout


@dataclass(frozen=True)
class JobFacts:
    """A job as `scontrol show job` describes it."""

    fields: dict[str, str]

    @property
    def state(self) -> str:
        """RUNNING, PENDING, COMPLETING, CANCELLED, ..."""
        return self.fields.get("JobState", "UNKNOWN")

    @property
    def is_alive(self) -> bool:
        """It runs, or will."""
        return self.state in {
            "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED",
            "REQUEUE_HOLD", "REQUEUE_FED", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING",
        }  # fmt: skip

    @property
    def restarts(self) -> int:
        """How often it was requeued."""
        return int(self.fields.get("Restarts", 0))

    @property
    def seconds_left(self) -> float | None:
        """Until the time limit; None without one."""
        limit, run = (seconds_of(self.fields.get(key, "")) for key in ("TimeLimit", "RunTime"))
        return None if limit is None or run is None else limit - run

    @property
    def was_preempted(self) -> bool:
        """Another job was given its nodes."""
        return self.fields.get("PreemptTime", "None") not in {"None", "(null)", "Unknown"}

    @property
    def nodes(self) -> str:
        """As SLURM writes them, `node[1-4]`; "" before it runs."""
        nodes = self.fields.get("NodeList", "")
        return "" if nodes == "(null)" else nodes


def show(job: str) -> JobFacts | None:
    """The job; None if SLURM does not know it, or no longer.

    Raises:
        SchedulerError: SLURM does not answer.
    """
    try:
        text = call("scontrol", "-o", "show", "job", job)
    except SchedulerError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    pairs = (word.partition("=") for word in text.split())
    return JobFacts({key: value for key, equals, value in reversed(list(pairs)) if equals})


def lost_nodes(nodes: str) -> list[str]:
    """Which of these nodes SLURM has given up; `nodes` as in `JobFacts.nodes`."""
    rows = call("sinfo", "-h", "-N", "-n", nodes, "-o", "%N|%T").splitlines()
    pairs = {tuple(row.split("|")) for row in rows}
    return sorted(name for name, state in pairs if state.rstrip("*~#!%$@^-") in _GONE)


def requeue(job: str) -> None:
    """Put the job back into the queue; this ends it where it runs.

    Raises:
        SchedulerError: SLURM refuses.
    """
    call("scontrol", "requeue", job)


def submit(script: Path, after: str) -> str:
    """Submit a batch script from within the job `after`, to begin when that is over; its id.

    Raises:
        SchedulerError: SLURM refuses.
    """
    # What describes the old job would be taken for the new one's; SLURM_CONF says where SLURM is.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM", "SUBMITIT_", "SRUN_", "SBATCH_"))
    }
    words = ("sbatch", "--parsable", f"--dependency=afterany:{after}", str(script))
    text = call(*words, environment=environment)
    return text.strip().split(";")[0]


@dataclass(frozen=True)
class Partition:
    """What a partition can give to one job."""

    name: str
    is_default: bool
    nodes: int
    minutes: int | None
    """Longest time of a job; None without limit."""
    gpus_per_node: int
    """Of the node that has most."""


def partitions() -> dict[str, Partition]:
    """Every partition of this cluster by name.

    Raises:
        SchedulerError: SLURM does not answer.
    """
    found: dict[str, Partition] = {}
    for row in call("sinfo", "-h", "-a", "-o", "%P|%l|%D|%G").splitlines():
        title, limit, nodes, gres = row.split("|", 3)
        name = title.rstrip("*")
        before = found.get(name)
        seconds = seconds_of(limit)
        found[name] = Partition(
            name,
            title.endswith("*"),
            int(nodes) + (before.nodes if before else 0),
            None if seconds is None else int(seconds // 60),
            max(_gpus(gres), before.gpus_per_node if before else 0),
        )
    return found


def seconds_of(time: str) -> float | None:
    """Seconds of SLURM's `days-hours:minutes:seconds`; None for `infinite`, `UNLIMITED`, `n/a`."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", time)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


def _gpus(gres: str) -> int:
    """GPUs in a list of generic resources such as `gpu:a100:8(S:0-1),shard:16`."""
    counts: Sequence[str] = re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", gres)
    return sum(int(count) for count in counts)
