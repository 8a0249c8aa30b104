"""One rank of a job: what submitit calls on every task of every attempt, and `local.py` starts.

Notable:
- Signals come at any moment. Until the program is loaded one means: leave now, nothing is lost.
  submitit's own handler, in force for a moment before ours, comes to the same (`checkpoint`).
  Later `pipeline.outcome` turns signals into requests.
- All that a rank prints, Python or not, goes into a log of its own and of this attempt.
- torch is loaded after the handlers are in place, since that takes seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline.launchers import scheduler
from pipeline.launchers.folder import JobFolder, attempt_name
from pipeline.launchers.scheduler import SchedulerError

MARGIN_SECONDS = 45.0
"""Before the time limit: what srun and the batch script need to end and requeue."""


class Job:
    """The callable that submitit pickles. Holds a path only: the rest is read when it runs.

    Args:
        folder: of the submission.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __call__(self) -> None:
        """Run this task's rank; returns if the run is finished, and ends the process otherwise."""
        folder, job = JobFolder(Path(self.folder)), os.environ["SLURM_JOB_ID"]
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        leave_on_signals(folder, attempt_name(job, restarts), int(os.environ["SLURM_PROCID"]))
        from submitit.helpers import TorchDistributedEnvironment

        # Another port after a requeue: the old one may be what the attempt broke down on. Those
        # that Linux gives to outgoing connections begin above.
        os.environ["MASTER_PORT"] = str(20000 + (7919 * restarts + int(job)) % 12000)
        environment = TorchDistributedEnvironment()
        environment.export(set_cuda_visible_devices=False, overwrite=True)
        if environment.rank == 0:
            _leave_before_the_limit(job)
        status = run_rank(folder, attempt_name(job, restarts), needs_gpus=True)
        if status:
            leave(status)

    def checkpoint(self, *_: Any, **__: Any) -> NoReturn:
        """Called by submitit's own signal handler: leave, and let the batch script requeue."""
        leave(os.EX_TEMPFAIL)


def run_rank(folder: JobFolder, attempt: str, needs_gpus: bool = False) -> int:
    """Run what the submitted config says as the rank that the environment names.

    Args:
        folder: of the submission.
        attempt: see `attempt_name`.
        needs_gpus: this node must have the GPUs that the config asks for.

    Returns:
        The exit status of `pipeline.outcome`, which is also left in the folder.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    _print_to(folder.log(attempt, rank))
    print(
        f"rank {rank} of {size} on {socket.gethostname()}, process {os.getpid()}, attempt "
        f"{attempt}, {time.strftime('%Y-%m-%d %H:%M:%S')}",
        flush=True,
    )
    status = _work(folder, lambda status: folder.write_status(attempt, rank, status), needs_gpus)
    print(f"rank {rank} ends with exit status {status}", flush=True)
    return status


def _work(folder: JobFolder, ended: Callable[[int], None], needs_gpus: bool) -> int:
    """Load the program and run it; `ended` is called before signals can end the process again."""
    from pipeline import config, distributed, run
    from pipeline.outcome import Outcome, exit_status
    from pipeline.training.stop_request import stop_requests

    def work() -> Outcome:
        settings = config.load(folder.config)
        cluster = settings.cluster
        if needs_gpus:
            _check_gpus(cluster.gpus_per_node)
        distributed.start(cluster.silence, cluster.collective_timeout)
        distributed.before_a_sudden_end(lambda _, status: ended(status))
        return run.main(settings)

    with stop_requests():
        status = int(exit_status(work))
        ended(status)
    return status


def _check_gpus(wanted: int) -> None:
    """A node whose driver is broken must not train on its CPU, or crowd a GPU.

    Raises:
        RuntimeError: GPUs are missing; on another node, or after a restart, they may not be.
    """
    import torch

    seen = torch.cuda.device_count()
    if wanted and seen != 1 and seen < int(os.environ["LOCAL_WORLD_SIZE"]):  # 1: SLURM gave it
        raise RuntimeError(
            f"{socket.gethostname()} shows {seen} GPUs and cluster.gpus_per_node is {wanted}: "
            "see nvidia-smi there, or leave the node out by --cluster.sbatch.exclude NODE"
        )


def leave(status: int) -> NoReturn:
    """End the process at once: no thread, child or process group can hold it up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def leave_on_signals(folder: JobFolder, attempt: str, rank: int) -> None:
    """Until there is something to save, a signal just ends this process."""

    def now(number: int, _frame: FrameType | None) -> None:
        os.write(2, f"left on signal {signal.Signals(number).name} before it began\n".encode())
        if folder.status(attempt, rank) is None:  # else it has just ended in its own way
            folder.write_status(attempt, rank, os.EX_TEMPFAIL)
        os._exit(os.EX_TEMPFAIL)

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, now)


def _print_to(log: Path) -> None:
    """Send stdout and stderr, of libraries too, to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _leave_before_the_limit(job: str) -> None:
    """End a rank that is still busy shortly before the time limit, while a requeue is possible.

    Ranks that were told to leave do so long before. One rank's end is the end of all: srun sees to
    that.
    """
    left = _seconds_left(job)
    if left is None or left <= 2 * MARGIN_SECONDS:
        return

    def wait(seconds: float) -> None:
        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()

    def end() -> None:
        left = _seconds_left(job)  # somebody may have raised the limit
        if left is not None and left > 2 * MARGIN_SECONDS:
            wait(left - MARGIN_SECONDS)
            return
        os.write(2, b"the time limit is near and this rank has not left: ending the attempt\n")
        os._exit(os.EX_TEMPFAIL)

    wait(left - MARGIN_SECONDS)


def _seconds_left(job: str) -> float | None:
    """Until the time limit; None if there is none, or SLURM does not answer."""
    try:
        facts = scheduler.show(job)
    except SchedulerError:
        return None
    return facts.seconds_left if facts is not None else None


def main(words: list[str]) -> NoReturn:
    """A rank without SLURM: `python -m pipeline.launchers.job FOLDER ATTEMPT`."""
    folder, attempt = JobFolder(Path(words[0])), words[1]
    leave_on_signals(folder, attempt, int(os.environ["RANK"]))
    leave(run_rank(folder, attempt))


if __name__ == "__main__":
    main(sys.argv[1:])
