"""Networks of every estimate under DDP and ZeRO: one process and two make the same steps.

What could differ: layers that scale themselves by an estimate, layers with several norms, and a
network without any estimate of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.toy import ROOT

STEPS = 3
NETWORKS = {
    "cpl, split flow": "cpl: depth=1 channels=4 dense_depth=1 features=8 skew=true",
    "cpl, relaxed": "cpl: depth=2 channels=4 dense_depth=1 features=8 step=0.1",
    "residual": "liresnet: depth=1 width=8 features=16 block=residual",
    "implicit, scaled": "cpl: depth=1 channels=4 dense_depth=1 features=8 layer=implicit scale=true",
    "fourier": "liresnet: depth=1 width=8 features=16 block=cayley",
    "attention": "liresnet: depth=1 width=8 features=16 block=l2_attention_ffn",
}
ENGINES = {
    "ddp": [],
    "zero1": ["--engine", "deepspeed", "--deepspeed.stage", "1"],
    "zero3": ["--engine", "deepspeed", "--deepspeed.stage", "3"],
}


def losses(output: Path, network: str, processes: int, *words: str) -> list[float]:
    """Of the first steps on digits."""
    name, _, options = NETWORKS[network].partition(": ")
    config = output / "network.yaml"
    config.write_text(
        f"name: trial\noutput: {output}\ndata: {{train: digits, val: digits, backend: memory}}\n"
        "objective: {name: multi_margin}\noptimizer: {name: adam, lr: 1.0e-2}\n"
        "training: {batch_size: 64, schedule: triangular, log_every: 1}\n"
        "certification: {at_end: false}\n"
        f"model: {{name: {name}, num_classes: 10, image_size: 8, in_channels: 1, "
        + ", ".join(option.replace("=", ": ") for option in options.split())
        + "}\n"
    )
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launcher, "launch/train.py", "--config", str(config), "--max-steps", str(STEPS), *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = (output / "trial.trial" / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, rows) if row["kind"] == "step"]


@pytest.mark.long
@pytest.mark.parametrize("network", NETWORKS)
def test_two_processes_make_the_steps_of_one(network: str, tmp_path: Path) -> None:
    alone = losses(tmp_path, network, 1)
    assert len(alone) == STEPS
    for words in ENGINES.values():
        assert losses(tmp_path, network, 2, *words) == pytest.approx(alone, rel=1e-4)
