"""DeepSpeed's collectives are communication: with a made-up backend, and with real processes.

Started as a program, this file is a rank of the real ones.
"""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline import distributed
from pipeline.objectives import build_objective
from pipeline.stopwatch import OTHER, Stopwatch
from pipeline.training.deepspeed_engine import DeepSpeedEngine
from pipeline.training.deepspeed_timing import COLLECTIVES, time_collectives
from pipeline.training.optimizer import NAdamLookahead
from tests.training.toy import ROOT, Recorder, toy_loop, toy_model

PAUSE = 0.2


def test_calls_and_waits_are_timed_once() -> None:
    now = 0.0

    def collective(seconds: float, async_op: bool = False) -> Any:
        nonlocal now
        now += seconds

        def wait() -> str:
            nonlocal now
            now += 10
            return "done"

        return SimpleNamespace(wait=wait, is_completed=lambda: True) if async_op else None

    backend_class = type("Backend", (), {name: staticmethod(collective) for name in COLLECTIVES})
    backend = backend_class()
    time_collectives(backend)
    time_collectives(backend)  # a second engine in the process
    watch = Stopwatch(torch.device("cpu"), lambda: now)
    with watch.running():
        assert backend.all_reduce(1) is None
        handle = backend.reduce_scatter_tensor(2, async_op=True)
        now += 100
        assert handle.is_completed() and handle.wait() == "done"
    assert watch.take() == {OTHER: 100, "communication": 13}


@pytest.mark.parametrize("stage", [1, 3])
def test_a_rank_that_waits_for_another_communicates(stage: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "tests.training.test_deepspeed_timing", str(stage)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    quick, slow = json.loads(line)
    assert min(parts["communication"] for parts in quick) > PAUSE / 2
    assert min(parts["forward"] for parts in slow) > PAUSE / 2


def main(stage: int) -> None:
    """Train with a rank 1 that sleeps in its forward; rank 0 prints the seconds of both."""
    world = distributed.start()
    model, emma, recorder = toy_model(), build_objective("emma"), Recorder()
    engine = DeepSpeedEngine(model, NAdamLookahead(model.parameters()), stage=stage)

    def slow(model: Any, batch: Any, epsilon: float) -> Any:
        time.sleep(PAUSE * world.rank)
        return emma(model, batch, epsilon)

    toy_loop(engine, [recorder], slow, max_steps=6).run()
    found = distributed.gather_objects([dict(record.seconds) for record in recorder.records[2:]])
    if world.is_main:
        print(json.dumps(found), flush=True)
    distributed.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
