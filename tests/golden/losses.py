"""Runs the golden configuration from the command line and reads its losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("golden.yaml")
STEPS = 20


def golden_losses(output: Path, code: Path = ROOT) -> list[float]:
    """The losses of the first steps, as the program wrote them (shortest round-trip decimals).

    Args:
        output: where the run directory goes.
        code: the tree whose `launch/train.py` and `pipeline` are run.
    """
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "launch/train.py", "--config", str(CONFIG), "--output", str(output),
         "--max-steps", str(STEPS)],
        cwd=code, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the golden run of {code} failed:\n{done.stdout}\n{done.stderr}")
    (metrics,) = output.glob("*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    if len(losses) != STEPS:
        raise RuntimeError(f"{len(losses)} losses in {metrics}, not {STEPS}")
    return losses
