"""What `launch/slurm.py` does: check, submit and perhaps follow; or run here; or only print."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence

from pipeline.config import RunConfig
from pipeline.launchers import scheduler, slurm
from pipeline.launchers.afterwards import INTERRUPTED
from pipeline.launchers.folder import JobFolder
from pipeline.launchers.follow import follow
from pipeline.launchers.local import check_machine, run_here
from pipeline.launchers.preflight import active_job, check_run, fit_to_cluster


def print_script(config: RunConfig) -> int:
    """Print the batch script that would be submitted. Needs no SLURM, and looks at nothing."""
    print(slurm.script(config, JobFolder.next_in(slurm.job_parent(config))))
    return 0


def run_locally(config: RunConfig) -> int:
    """Run the job on this machine; the exit status.

    Raises:
        ValueError: something in the config cannot work.
    """
    check_machine(config)
    if scheduler.is_here() and (active := active_job(config)) is not None:
        raise ValueError(
            f"{config.directory} has job {active.job} already ({active.state}): end it first with "
            f"scancel {active.job}"
        )
    check_run(config)
    return run_here(config, slurm.make_folder(config))


def submit(config: RunConfig, command: Sequence[str], watch: bool) -> int:
    """Submit the job and say where it is; the exit status.

    Args:
        command: that was typed, without `--follow`.
        watch: stay and show how it gets on.

    Raises:
        ValueError: something in the config cannot work, or SLURM is not here or refuses.
    """
    if not scheduler.is_here():
        raise ValueError(slurm.MISSING)
    active = active_job(config)
    if active is not None:
        if not watch:
            raise ValueError(
                f"{config.directory} has job {active.job} already ({active.state}): add --follow "
                f"to watch it, or end it first with scancel {active.job}"
            )
        print(f"{config.directory} has job {active.job} already ({active.state})")
        folder, job = active.folder, active.job
    else:
        check_run(config)
        config, notes = fit_to_cluster(config)
        for note in notes:
            print(f"note: {note}")
        folder = slurm.make_folder(config)
        try:
            job = slurm.submit(config, folder)
        except ValueError:
            shutil.rmtree(folder.path)
            raise
        print(f"submitted job {job}: {_size(config)}")
    print(f"  run directory   {config.directory}")
    print(f"  code and logs   {folder.path}")
    print(f"  follow          {shlex.join([*command, '--follow'])}")
    print(f"  stop            scancel {job}", flush=True)
    if not watch:
        return 0
    try:
        return follow(config, folder)
    except KeyboardInterrupt:
        job = folder.job() or job
        print(f"\njob {job} goes on; follow it again as above, or stop it with scancel {job}")
        return INTERRUPTED


def _size(config: RunConfig) -> str:
    """`4 nodes x 8 tasks`."""
    cluster = config.cluster
    nodes = f"{cluster.nodes} node{'s' if cluster.nodes > 1 else ''}"
    return f"{nodes} x {cluster.tasks_on_a_node} task{'s' if cluster.tasks_on_a_node > 1 else ''}"
