"""Several real processes save and load together; some are killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.checkpoint import load_latest
from tests.checkpoint.ranks import CHECKS
from tests.checkpoint.saving import no_damage

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], str]:
    """The checks that three processes passed, and all output."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3",
         "-m", "tests.checkpoint.ranks", str(tmp_path_factory.mktemp("ranks"))],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return set(done.stdout.split()), done.stdout + done.stderr


@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
def test_check(name: str, launched: tuple[set[str], str]) -> None:
    passed, output = launched
    assert name in passed, output


def start_ranks(root: Path, step: int) -> list[subprocess.Popen[str]]:
    """Two processes that save from `step` on, until they are killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.checkpoint.ranks", str(root), str(step)],
            env={**ENVIRONMENT, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


def killed(root: Path, rounds: int, seed: int) -> None:
    """Kill one rank at a random moment and the other soon after; what is there must be whole."""
    moments, last = random.Random(seed), 0
    print(f"seed {seed}")
    for _ in range(rounds):
        ranks = start_ranks(root, last)
        try:
            for rank in ranks:
                assert rank.stdout is not None and "is writing" in rank.stdout.readline()
            deadline = time.monotonic() + 120
            while not (root / f"step_{last + 1:06d}").exists() and time.monotonic() < deadline:
                time.sleep(0.005)  # at least one new checkpoint, so that rounds go forward
            time.sleep(moments.uniform(0, 0.3))
            moments.shuffle(ranks)
            for rank in ranks:
                rank.send_signal(signal.SIGKILL)
                time.sleep(moments.uniform(0, 0.05))
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        found = load_latest(root, no_damage)
        assert found is not None and found.step > last
        assert found.tensors.whole("model", "w").unique().tolist() == [found.step]
        last = found.step


def test_sigkill_at_any_moment_leaves_a_whole_one(tmp_path: Path) -> None:
    killed(tmp_path, rounds=3, seed=random.randrange(10**6))


@pytest.mark.long
def test_many_kills_leave_a_whole_one(tmp_path: Path) -> None:
    killed(tmp_path, rounds=25, seed=random.randrange(10**6))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_full_in_fact(tmp_path: Path) -> None:
    """Checkpoints of 600 kB on 2 MB, all kept: the fourth does not fit, three are whole."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    script = (
        "import sys; from pathlib import Path; import torch\n"
        "from tests.checkpoint.saving import save\n"
        "for step in range(1, 9):\n"
        "    save(Path(sys.argv[1]), step, {'model': {'w': torch.full((75_000,), step)}}, keep=9)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "checkpoints")],
            cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        sentence = "step_000004 could not be written (No space left on device)"
        assert done.returncode == 1 and sentence in done.stderr
        left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
        assert left == ["step_000001", "step_000002", "step_000003"]
        found = load_latest(tmp_path / "checkpoints", no_damage)
        assert found is not None and found.tensors.whole("model", "w").unique().tolist() == [3]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
