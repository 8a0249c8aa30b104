"""Starts the ranks of a run as plain processes, as a launcher does that does not watch them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Ranks:
    """Processes of one run, in a session each; killed at the end of the `with`.

    Args:
        words: what every rank runs, after the Python interpreter.
        size: how many ranks.
        folder: where the output of each goes.
    """

    def __init__(self, words: Sequence[str], size: int, folder: Path) -> None:
        self.folder = folder
        port = str(free_port())
        self.processes = []
        for rank in range(size):
            environment = {
                **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size),
                "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
                "SLURMD_NODENAME": f"node{rank}",
            }  # fmt: skip
            with self._log(rank).open("wb") as log:
                started = subprocess.Popen(
                    [sys.executable, *words],
                    cwd=ROOT,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.processes.append(started)

    def _log(self, rank: int) -> Path:
        return self.folder / f"output_{rank}.txt"

    def output(self, rank: int) -> str:
        return self._log(rank).read_text()

    def outputs(self) -> str:
        return "\n".join(f"--- rank {r}\n{self.output(r)}" for r in range(len(self.processes)))

    def send(self, number: signal.Signals, *ranks: int) -> None:
        for rank in ranks or range(len(self.processes)):
            self.processes[rank].send_signal(number)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            alive = any(process.poll() is None for process in self.processes)
            assert alive and time.monotonic() < deadline, self.outputs()
            time.sleep(0.02)

    def statuses(self, *ranks: int) -> list[int]:
        """Exit statuses of `ranks`, or of all, waited for."""
        return [self.processes[rank].wait(PATIENCE) for rank in ranks or range(len(self.processes))]

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()  # also one that is stopped
            process.wait()
