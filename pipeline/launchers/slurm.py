"""A run as a SLURM job: the batch script, through submitit, and its submission.

Notable:
- The script is submitit's; ours are the lines before srun: what the tasks import, and the traps
  that decide what comes after an attempt (`afterwards.py`). The shell waits for srun whatever
  signal it gets, so the EXIT trap runs when no rank lives any more. SIGTERM is what SLURM sends
  when it ends the job itself: srun may outlive that, waiting for a lost node, and the shell not.
- `--kill-on-bad-exit` makes one rank's bad end the end of all, instead of a wait for it.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from pipeline.config import ClusterConfig, RunConfig
from pipeline.config import save as save_config
from pipeline.launchers import scheduler
from pipeline.launchers.folder import JobFolder
from pipeline.launchers.job import Job
from pipeline.launchers.snapshot import ROOT, take_snapshot

# -P: without it, -m would import from the folder that the job was submitted in, not the snapshot.
PYTHON = f"{shlex.quote(sys.executable)} -P"
WAITING_SRUN = [
    "srun() {  # in the background, since a shell that waits for a program answers no signal",
    '  command srun "$@" & local pid=$! status',
    "  while true; do",
    "    wait $pid; status=$?  # which a signal ends too",
    "    kill -0 $pid 2>/dev/null || return $status",
    "  done",
    "}",
]
MISSING = (
    "SLURM is not here (there is no sbatch on PATH): --local runs the same job on this machine, "
    "--dry-run prints the script that would be submitted"
)


def job_parent(config: RunConfig) -> Path:
    """Where the submissions of a run have their folders; absolute."""
    chosen = config.cluster.job_folder
    return (Path(chosen) if chosen else config.directory / "jobs").absolute()


def make_folder(config: RunConfig) -> JobFolder:
    """The folder of a new submission, with everything that its tasks read.

    Raises:
        ValueError: it cannot be written.
    """
    parent = job_parent(config)
    try:
        folder = JobFolder.make(parent)
        save_config(config, folder.config)
        if config.cluster.snapshot:
            take_snapshot(folder.code)
    except OSError as error:
        key = "cluster.job_folder" if config.cluster.job_folder else "output"
        raise ValueError(
            f"{key}: {error.filename or parent} cannot be written ({error.strerror}): choose "
            "another folder, on storage that all nodes share"
        ) from None
    folder.describe(
        run_directory=str(config.directory.absolute()),
        tasks=config.cluster.tasks,
        requeue=config.cluster.requeue,
    )
    return folder


def script(config: RunConfig, folder: JobFolder) -> str:
    """The batch script, as `submit` gives it to sbatch. Needs no SLURM."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{PYTHON} -u -m submitit.core._submit {shlex.quote(str(folder.path))}"
    return str(
        _make_sbatch_string(command=command, folder=folder.path, **_parameters(config, folder))
    )


def submit(config: RunConfig, folder: JobFolder) -> str:
    """Submit the job; its id.

    Raises:
        ValueError: SLURM is not here, or refuses the job.
    """
    if not scheduler.is_here():
        raise ValueError(MISSING)
    import submitit

    executor = submitit.AutoExecutor(
        folder=folder.path, cluster="slurm", slurm_python=PYTHON, slurm_max_num_timeout=10**6
    )
    executor.update_parameters(
        **{f"slurm_{name}": value for name, value in _parameters(config, folder).items()}
    )
    try:
        job = str(executor.submit(Job(folder.path)).job_id)
    except submitit.core.utils.FailedJobError as error:
        lines = [line for line in str(error).splitlines() if "error" in line.lower()]
        raise ValueError(f"SLURM refuses the job: {' '.join(lines) or error}") from None
    folder.record("submitted", job=job)
    return job


def _parameters(config: RunConfig, folder: JobFolder) -> dict[str, Any]:
    """Of submitit's SlurmExecutor."""
    cluster = config.cluster
    srun = ["--kill-on-bad-exit=1", "--open-mode=append"]
    if cluster.cpus_per_task:  # since SLURM 22.05 srun no longer takes it from sbatch
        srun.append(f"--cpus-per-task={cluster.cpus_per_task}")
    parameters: dict[str, Any] = {
        "job_name": config.name,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_on_a_node,
        "gpus_per_node": cluster.gpus_per_node or None,
        "time": cluster.minutes,  # a number, which submitit computes with; 0 is no limit
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "exclusive": cluster.exclusive or None,
        "cpus_per_task": cluster.cpus_per_task,
        "mem": cluster.memory,
        "signal_delay_s": cluster.signal_seconds,
        "setup": _setup(cluster, folder),
        "srun_args": srun,
        "additional_parameters": {
            "requeue" if cluster.requeue else "no-requeue": True,
            **{name: value for name, value in cluster.sbatch.items() if value is not False},
        },
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _setup(cluster: ClusterConfig, folder: JobFolder) -> list[str]:
    """The lines before srun."""
    code = folder.code if cluster.snapshot else ROOT
    path = f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}"
    judge = f"{PYTHON} -m pipeline.launchers.afterwards {shlex.quote(str(folder.path))}"
    return [
        f'judge() {{ {path}; {judge} "$1"; }}',
        "trap 'judge $?' EXIT",
        "trap 'judge TERM' TERM",
        "trap : USR2",
        *WAITING_SRUN,
        *cluster.setup,
        *(f"export {name}={shlex.quote(text)}" for name, text in cluster.environment.items()),
        path,
    ]
