"""What the tests of faults have in common: a small run on four nodes, and what it must come to."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.order import Order
from pipeline.training.sample_log import verify_samples
from tests.cluster.conftest import Cluster, wait_until

EPOCHS, SAMPLES, BATCH, EVERY_STEPS = 6, 1437, 60, 10
ORDER = Order(SAMPLES, BATCH, seed=0)
WORDS = [
    "--gpus-per-node", "0", "--config", "configs/digits.yaml", "--engine", "deepspeed",
    "--deepspeed.stage", "2", "--model.width", "16", "--model.depth", "2",
    "--model.features", "64", "--training.batch-size", str(BATCH),
    "--training.warmup-epochs", "0.5", "--training.validate-every", "0",
    "--training.log-samples", "true", "--checkpoint.every-steps", str(EVERY_STEPS),
    "--cluster.silence", "15", "--cluster.collective-timeout", "60",
]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run that was submitted."""

    cluster: Cluster
    directory: Path
    epochs: int

    @property
    def all_steps(self) -> int:
        """Of the whole run."""
        return self.epochs * ORDER.steps_per_epoch

    @property
    def steps(self) -> int:
        """The last step of metrics.jsonl."""
        path = self.directory / "metrics.jsonl"
        rows = path.read_text().splitlines() if path.is_file() else []
        complete = [row for row in rows if row.endswith("}")]
        return json.loads(complete[-1])["step"] if complete else 0

    def made(self) -> list[int]:
        """The steps in metrics.jsonl, in order."""
        lines = (self.directory / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return [row["step"] for row in rows if row["kind"] == "step"]

    @property
    def finished(self) -> bool:
        """The whole validation set is certified."""
        return (self.directory / "certificate" / "certificate.json").is_file()

    def history(self) -> list[dict]:
        """Of its jobs and attempts, over all submissions."""
        return [
            json.loads(line)
            for path in sorted(self.directory.glob("jobs/*/history.jsonl"))
            for line in path.read_text().splitlines()
        ]

    @property
    def job(self) -> str:
        """The newest one."""
        return [row["job"] for row in self.history() if row["event"] == "submitted"][-1]

    def ranks(self) -> list[int]:
        """Processes of the tasks that live."""
        return [
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if (words := _words(entry))
            and Path(words[0]).name.startswith("python")
            and "submitit.core._submit" in words
            and words[-1].startswith(str(self.directory))
        ]

    def wait_for_step(self, step: int) -> None:
        """Until it has trained so far."""
        wait_until(lambda: self.steps >= step or self.finished, f"step {step} is reached", 300)

    def wait_for_end(self) -> None:
        """Nudge it through the queue until it is finished; a node that is down is started."""

        def ended() -> bool:
            if self.finished and self.cluster.state(self.job) in {"COMPLETED", "COMPLETING"}:
                return True
            self.nudge()
            return False

        wait_until(ended, "the run is finished", 500)

    def nudge(self) -> None:
        """A requeued job waits two minutes by itself."""
        self.cluster.nudge(self.job)


def submit(
    cluster: Cluster, folder: Path, *words: str, nodes: int = 4, epochs: int = EPOCHS
) -> Run:
    """Submit the small run, or go on with it."""
    sizes = ["--nodes", str(nodes), "--training.epochs", str(epochs)]
    cluster.launched(*WORDS, *sizes, "--output", str(folder), *words)
    return Run(cluster, folder / "digits", epochs)


def check_whole(run: Run) -> None:
    """Every step stands once in the record and used its samples; every image is certified."""
    assert run.made() == list(range(1, run.all_steps + 1)), "no step lost, none repeated"
    verify_samples(run.directory, ORDER, run.all_steps)
    images = (run.directory / "certificate" / "images.tsv").read_text().splitlines()
    assert [int(row.split("\t")[0]) for row in images[1:]] == list(range(360))


def outcome(run: Run) -> tuple[str, list[list[str]]]:
    """What equal runs have in common to the bit: the weights, and the rows without their times."""
    folder = run.directory / "certificate"
    certificate = json.loads((folder / "certificate.json").read_text())
    lines = [line.split("\t") for line in (folder / "images.tsv").read_text().splitlines()]
    time_column = lines[0].index("time")
    return certificate["weights_sha256"], [
        row[:time_column] + row[time_column + 1 :] for row in lines
    ]


def kill(process: int, number: signal.Signals) -> None:
    """Send a signal to what may have ended meanwhile."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        time.sleep(0)


def _words(entry: Path) -> list[str]:
    """The command line of a process."""
    try:
        return (entry / "cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []
