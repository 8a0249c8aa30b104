"""A real SLURM cluster of four virtual nodes, once a session, in a temporary directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.runs import Run

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("fake_slurm.sh")
NO_SLURM = 77


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A cluster of four nodes on two cores takes its time, more so where other work is done."""
    for item in items:
        if (
            Path(__file__).parent in item.path.parents
            and item.get_closest_marker("timeout") is None
        ):
            item.add_marker(pytest.mark.timeout(1800))


@dataclass(frozen=True)
class Cluster:
    """The running cluster."""

    folder: Path
    environment: dict[str, str]
    """With which sbatch, srun, scontrol find it."""

    def call(self, *words: str) -> str:
        """Run a command of SLURM."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def node(self, verb: str, number: int) -> None:
        """`kill-node`, `freeze-node`, `thaw-node` or `start-node`."""
        subprocess.run(["bash", SCRIPT, verb, str(number), self.folder], check=True, timeout=60)

    def field(self, job: str, name: str) -> str:
        """What `scontrol show job` says, such as of JobState."""
        found = re.search(rf"{name}=(\S+)", self.call("scontrol", "-o", "show", "job", job))
        assert found is not None
        return found[1]

    def state(self, job: str) -> str:
        """Of a job."""
        return self.field(job, "JobState")

    def start_now(self, job: str) -> None:
        """Wait until a job is back in the queue, and let it start."""
        wait_until(lambda: self.state(job) == "PENDING", f"job {job} is back in the queue")
        self.nudge(job)

    def nudge(self, job: str) -> None:
        """Let a requeued job start in two seconds, which waits two minutes by itself.

        Not at once: a node refuses a job that was killed on it in the same second ("Job credential
        revoked"), and then SLURM lets the job fail, not wait. That is what the two minutes are for.
        """
        if self.state(job) != "PENDING" or (start := self.field(job, "StartTime")) == "Unknown":
            return
        if (datetime.fromisoformat(start) - datetime.now()).total_seconds() > 5:
            self.call("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def launch(self, *words: str) -> subprocess.Popen[str]:
        """launch/slurm.py as a person types it."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "launch" / "slurm.py"), *words],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def launched(self, *words: str, status: int = 0) -> str:
        """Wait for it; what it printed."""
        process = self.launch(*words)
        try:
            output, _ = process.communicate(timeout=400)
        finally:
            process.kill()
        assert process.returncode == status, output
        return output


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FS_NODES": "4"}
    try:
        started = subprocess.run(
            ["bash", SCRIPT, "start", folder], env=environment, capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip
        if started.returncode == NO_SLURM:
            pytest.skip(f"no SLURM cluster here: {started.stderr.strip().splitlines()[-1]}")
        assert started.returncode == 0, started.stderr
        # Its own words for what finds it: `export NAME='value'...`, as a shell understands them.
        lines = subprocess.run(
            ["bash", "-c", f'eval "$(bash {SCRIPT} env {folder})"; env -0'],
            env=environment, capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        pairs = (line.partition("=") for line in lines.split("\0") if line)
        yield Cluster(folder, {name: value for name, _, value in pairs})
    finally:
        subprocess.run(
            ["bash", SCRIPT, "stop", folder, "--purge"], capture_output=True, timeout=120
        )


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run of `runs.py`, left alone: what disturbed ones must come to."""
    from tests.cluster.runs import check_whole, submit

    run = submit(cluster, tmp_path_factory.mktemp("undisturbed"))
    run.wait_for_end()
    check_whole(run)
    return run


def wait_until(condition: Callable[[], object], what: str, seconds: float = 400) -> None:
    """Look several times a second; fail with `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it never happened that {what}"
        time.sleep(0.2)
