"""The section `cluster`: where and how `launch/slurm.py` runs a job, and when its ranks give up.

Nothing in it changes a result, so a run may go on with any other values.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section

OWN_KEYS = {
    "nodes": "nodes",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "time": "time",
    "constraint": "constraint",
    "exclusive": "exclusive",
    "cpus-per-task": "cpus_per_task",
    "mem": "memory",
    "gpus-per-node": "gpus_per_node",
    "ntasks-per-node": "tasks_per_node",
    "signal": "signal_seconds",
    "requeue": "requeue",
    "no-requeue": "requeue",
}
"""Parameters of sbatch that have a key of their own here."""
KEPT_BY_LAUNCHER = {"array", "chdir", "error", "export", "ntasks", "open-mode", "output", "wrap"}
"""Parameters of sbatch that requeue and logs depend on."""

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")


class ClusterConfig(Section):
    """What a SLURM job asks for. Defaults are those of a node with eight GPUs."""

    nodes: int = Field(1, gt=0)
    gpus_per_node: int = Field(8, ge=0)
    """One task a GPU; 0 on a cluster without GPUs, where `tasks_per_node` counts."""
    tasks_per_node: int | None = Field(None, gt=0)
    """Only without GPUs; 1 if not given."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: int | str = "1-00:00:00"
    """Limit of one job, as sbatch takes it: minutes, or "days-hours:minutes:seconds". A longer run
    is a chain of jobs."""
    constraint: str | None = None
    exclusive: bool = False
    cpus_per_task: int | None = Field(None, gt=0)
    memory: str | None = None
    """Of a node, as sbatch takes it: "480G"; "0" for all of it."""
    setup: list[str] = Field(default_factory=list)
    """Lines of shell before the tasks start, such as `module load cuda`."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of every task, such as NCCL_SOCKET_IFNAME."""
    requeue: bool = True
    """False where the cluster forbids it: then a new job is submitted in place of the old one."""
    sbatch: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Any other parameter of sbatch, by its long name: `{mail-type: END}`; true for a flag."""
    snapshot: bool = True
    """Tasks run from a copy of the code, so that edits while the job is queued do no harm."""
    signal_seconds: int = Field(300, gt=0)
    """How long before the time limit the ranks are told to save and leave."""
    silence: float = Field(60, gt=0)
    """Seconds without a sign of life after which a rank is taken for lost."""
    collective_timeout: float = Field(600, gt=0)
    """Seconds after which a rank gives up waiting in one collective."""
    job_folder: str | None = None
    """Where each submission gets a numbered folder for its code, script and logs; by default
    `jobs/` in the run directory. All nodes must see it."""

    @property
    def tasks_on_a_node(self) -> int:
        """Ranks that a node runs."""
        return self.gpus_per_node or self.tasks_per_node or 1

    @property
    def tasks(self) -> int:
        """Ranks of the run."""
        return self.nodes * self.tasks_on_a_node

    @property
    def minutes(self) -> int:
        """The time limit; 0 for none."""
        return minutes_of(self.time)

    @field_validator("time")
    @classmethod
    def _a_time(cls, value: int | str) -> int | str:
        minutes_of(value)
        return value

    @field_validator("environment", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", str(name)):
                raise ValueError(f"{name!r} is no name of an environment variable")
            if isinstance(text, bool) or not isinstance(text, str | int | float):
                raise ValueError(f"give {name} a text or a number, quoted if in doubt")
        return {name: str(text) for name, text in value.items()}

    @field_validator("memory", "account", "constraint", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("sbatch")
    @classmethod
    def _others_only(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            long = name.replace("_", "-")
            if long in OWN_KEYS:
                raise ValueError(f"{name} has a key of its own: set cluster.{OWN_KEYS[long]}")
            if long in KEPT_BY_LAUNCHER or not re.fullmatch(r"[a-z][a-z-]+", long):
                raise ValueError(f"{name} cannot be set: logs and requeue depend on it")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> ClusterConfig:
        if self.tasks_per_node and self.gpus_per_node not in (0, self.tasks_per_node):
            raise ValueError(
                f"tasks_per_node {self.tasks_per_node} differs from gpus_per_node "
                f"{self.gpus_per_node}, and there is one task a GPU: leave tasks_per_node out, or "
                "set gpus_per_node to 0"
            )
        if self.minutes and self.signal_seconds >= 60 * self.minutes:
            raise ValueError(
                f"signal_seconds {self.signal_seconds} leaves nothing of a time of "
                f"{self.minutes} minutes: set a longer time or a shorter signal_seconds"
            )
        return self


def minutes_of(time: int | str) -> int:
    """A time limit in minutes, rounded up, from what sbatch takes; 0 for none.

    Args:
        time: minutes, "minutes", "minutes:seconds", "hours:minutes:seconds", "days-hours",
            "days-hours:minutes", "days-hours:minutes:seconds", or "UNLIMITED" (also "infinite").

    Raises:
        ValueError: it is none of these.
    """
    text = str(time).strip()
    if text.lower() in {"unlimited", "infinite"}:
        return 0
    match = _TIME.fullmatch(text)
    if match is None or isinstance(time, bool):
        raise ValueError('give minutes, or a time such as "1-00:00:00" (days-hours:min:sec)')
    parts = [int(part) for part in match["clock"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        seconds += 86400 * int(match["days"])
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return -(-(3600 * hours + 60 * minutes + seconds) // 60)
