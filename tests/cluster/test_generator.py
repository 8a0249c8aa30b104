"""A generator through the same door: trained on two nodes, drawn from on three, one killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.cluster.conftest import ROOT, Cluster, wait_until
from tests.cluster.runs import Run, kill

SMALL = [
    "--gpus-per-node", "0", "--config", "configs/ddpm_digits.yaml", "--training.epochs", "2",
    "--model.channels", "8", "--model.head-channels", "4", "--diffusion.timesteps", "100",
    "--diffusion.monitor.images", "10", "--diffusion.monitor.steps", "2",
    "--diffusion.monitor.batch-size", "10",
]  # fmt: skip
DRAWN = ["--count", "600", "--steps", "5", "--batch-size", "10", "--nearest", "20"]


def test_trained_on_two_nodes_and_drawn_on_three_one_of_them_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    words = [*SMALL, "--output", str(tmp_path)]
    assert "finished" in cluster.launched(*words, "--nodes", "2", "--follow")
    directory = tmp_path / "ddpm_digits"
    assert any((directory / "checkpoints").glob("step_*")), "it was trained"

    out = tmp_path / "drawn.npz"
    sampling = [
        f"--sampling.{word[2:]}" if word.startswith("--") else word
        for word in [*DRAWN, "--out", str(out)]
    ]
    task = [*words, "--task", "ddpm_sample", "--nodes", "3", *sampling]
    assert "3 nodes x 1 task" in cluster.launched(*task)
    run, batches = Run(cluster, directory, 2), Path(f"{out}.drawn")
    wait_until(lambda: len([*batches.glob("*.images.npy")]) > 3, "it draws")
    ranks = run.ranks()
    kill(ranks[0], signal.SIGKILL)
    before = {path.name for path in batches.glob("*.images.npy")}

    def written() -> bool:
        run.nudge()
        return out.is_file() and cluster.state(run.job) in {"COMPLETED", "COMPLETING"}

    wait_until(written, "the killed job is drawn to its end")
    verdicts = [row["verdict"] for row in run.history() if row["event"] == "ended"]
    assert len(ranks) == 3 and verdicts[-1] == "finished" and "fault" in verdicts, verdicts
    assert 3 < len(before) < 60, "it was killed in the midst"

    alone = tmp_path / "alone.npz"
    subprocess.run(
        [sys.executable, "tools/ddpm_sample.py", "--run", str(directory), "--out", str(alone),
         *DRAWN],
        cwd=ROOT, check=True, capture_output=True, timeout=300, env=dict(os.environ),
    )  # fmt: skip
    one, other = np.load(out), np.load(alone)
    assert np.array_equal(one["image"], other["image"]) and len(one["image"]) == 600
    assert np.array_equal(one["label"], other["label"])
    assert json.loads(Path(f"{out}.json").read_text())["num_samples"] == 600
