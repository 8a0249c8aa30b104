"""Three real processes of which one is lost in some way: the others end, and say who it was."""

import signal
import time
from pathlib import Path

import pytest

from tests.distributed.processes import Ranks

SILENCE = 6
WORKER = f"""
import sys, time
import torch
from pipeline import distributed
from pipeline.outcome import FINISHED, exit_status

rounds, sulking, timeout = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

def work():
    world = distributed.start(silence={SILENCE}, collective_timeout=timeout)
    for number in range(rounds):
        if number == 5:
            print("working", flush=True)
            while world.rank == sulking:
                time.sleep(0.1)
        distributed.sum_over_ranks(torch.ones(1))
        time.sleep(0.02)
    return FINISHED

sys.exit(exit_status(work))
"""


def launch(tmp_path: Path, rounds: int = 10**6, sulking: int = -1, timeout: float = 600) -> Ranks:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    ranks = Ranks([str(script), str(rounds), str(sulking), str(timeout)], 3, tmp_path)
    ranks.wait_until(lambda: all("working" in ranks.output(rank) for rank in range(3)))
    return ranks


def sentence(ranks: Ranks, rank: int) -> str:
    """All that a rank printed, but for what the test made it print and C++ wrote."""
    lines = ranks.output(rank).splitlines()
    return "\n".join(line for line in lines if line != "working" and not line.startswith("["))


def test_finishing_is_no_silence(tmp_path: Path) -> None:
    with launch(tmp_path, rounds=20) as ranks:
        assert ranks.statuses() == [0, 0, 0], ranks.outputs()
        assert [sentence(ranks, rank) for rank in range(3)] == ["", "", ""]


@pytest.mark.parametrize("lost", [0, 2])
def test_killed(tmp_path: Path, lost: int) -> None:
    with launch(tmp_path) as ranks:
        ranks.send(signal.SIGKILL, lost)
        others = [rank for rank in range(3) if rank != lost]
        assert ranks.statuses(*others) == [75, 75], ranks.outputs()
        wanted = f"error: rank {lost} on node{lost} is gone: it crashed or was killed; "
        heard = [sentence(ranks, rank) for rank in others]
        assert heard[0].startswith(wanted), ranks.outputs()
        # One line on the screen: rank 0's, or where that is lost each rank's own.
        assert (heard[1] == "") == (lost != 0) and "Traceback" not in ranks.outputs()


@pytest.mark.parametrize("lost", [0, 1])
def test_frozen(tmp_path: Path, lost: int) -> None:
    with launch(tmp_path) as ranks:
        began = time.monotonic()
        ranks.send(signal.SIGSTOP, lost)
        others = [rank for rank in range(3) if rank != lost]
        assert ranks.statuses(*others) == [75, 75], ranks.outputs()
        assert time.monotonic() - began >= SILENCE - 1
        wanted = f"rank {lost} on node{lost} has been silent for {SILENCE} s"
        assert wanted in sentence(ranks, others[0]), ranks.outputs()
        ranks.send(signal.SIGCONT, lost)  # it hears that it was given up
        assert ranks.statuses(lost) == [75], ranks.outputs()


def test_alive_but_stuck(tmp_path: Path) -> None:
    with launch(tmp_path, sulking=1, timeout=3) as ranks:
        assert ranks.statuses() == [75, 75, 75], ranks.outputs()
        wanted = "error: rank 1 on node1 did not come to a collective within 3 s"
        assert sentence(ranks, 0) == wanted, ranks.outputs()


def test_suspended_as_a_whole_and_thawed(tmp_path: Path) -> None:
    with launch(tmp_path, rounds=700) as ranks:
        ranks.send(signal.SIGSTOP)
        time.sleep(SILENCE + 3)
        ranks.send(signal.SIGCONT)
        assert ranks.statuses() == [0, 0, 0], ranks.outputs()


def test_nobody_to_meet(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(
        "from pipeline import distributed\n"
        "from pipeline.outcome import FINISHED, exit_status\n"
        "import os, sys\n"
        "if os.environ['RANK'] == '0':\n"
        "    sys.exit()\n"
        "sys.exit(exit_status(lambda: distributed.start(collective_timeout=2) and FINISHED))\n"
    )
    with Ranks([str(script)], 2, tmp_path) as ranks:
        assert ranks.statuses(1) == [75]
        assert "error: rank 1 on node1 did not find the other 1 processes" in ranks.output(1)


LEAVER = f"""
import os, sys, time
from pipeline import distributed
from pipeline.outcome import FINISHED, exit_status
from pipeline.training.stop_request import StopRequestedError

def work():
    world = distributed.start(silence={SILENCE}, collective_timeout=600)
    print("working", flush=True)
    if world.rank == 1:
        raise StopRequestedError("signal SIGUSR2")
    while True:  # as in a collective of nccl, which does not notice that somebody left
        time.sleep(0.1)

sys.exit(exit_status(work))
"""


def test_who_waits_in_vain_for_one_that_left_on_request_ends_too(tmp_path: Path) -> None:
    with Ranks(["-c", LEAVER], 3, tmp_path) as ranks:
        assert ranks.statuses() == [75, 75, 75], ranks.outputs()
        assert sentence(ranks, 0) == "rank 1 on node1 left on signal SIGUSR2", "and no error"
        assert sentence(ranks, 2) == ""
