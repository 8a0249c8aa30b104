"""Collectives with two real gloo processes, and their meaning in a world of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline import distributed

ROOT = Path(__file__).parents[1]

TWO = """
import time
import torch
from pipeline import distributed as d
world = d.start()
assert d.start() == world and world.size == 2
assert d.gather_objects(world.rank * 10) == [0, 10]
assert d.broadcast_object(f"from {world.rank}") == "from 0"
assert d.sum_over_ranks(torch.tensor([world.rank + 1.0])).item() == 3.0
try:
    d.raise_together(KeyError("lost") if world.rank == 1 else None)
except KeyError:
    assert world.rank == 1
except RuntimeError as error:
    assert world.rank == 0 and "rank 1 failed" in str(error) and "lost" in str(error)
else:
    raise AssertionError("no error")
try:  # rank 1 fails before it comes to where rank 0 asks
    with d.together():
        if world.rank == 1:
            raise OSError("gone")
        with d.together():
            pass
except (OSError, d.RankFailedError) as error:
    assert ("rank 1 failed" in str(error)) == (world.rank == 0)
found = d.together_while(lambda: time.sleep(0.3) or "done")
assert found == ("done" if world.rank == 0 else None)
try:
    d.together_while(lambda: {}["lost"])
except KeyError:
    assert world.rank == 0
except d.RankFailedError:
    assert world.rank == 1
assert d.gather_objects(world.rank) == [0, 1]  # nobody is a collective behind
d.barrier()
d.stop()
print(f"fine {world.rank};", flush=True)
"""


def test_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(script)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(f"fine {rank};" in done.stdout for rank in (0, 1))


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.start() == distributed.World(0, 1, 0)
    assert distributed.gather_objects("x") == ["x"]
    assert distributed.broadcast_object("x") == "x"
    assert distributed.sum_over_ranks(torch.tensor(2.0)).item() == 2.0
    distributed.raise_together(None)
    with pytest.raises(KeyError):
        distributed.raise_together(KeyError("mine"))
    assert distributed.together_while(lambda: 3) == 3
