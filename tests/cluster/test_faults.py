"""A node killed, a node frozen, a rank killed, the time limit, other nodes: nothing is lost.

Notable: every disturbed run must end with the bits of the undisturbed one.
"""

import json
import signal
from pathlib import Path

import pytest

from pipeline.training.sample_log import verify_samples
from tests.cluster.conftest import Cluster, wait_until
from tests.cluster.runs import ORDER, Run, check_whole, kill, outcome, submit


def what_happened(run: Run) -> str:
    """All that the attempts said of their ends."""
    return " / ".join(row["what"] for row in run.history() if row["event"] == "ended")


def attempts(run: Run) -> list[dict]:
    return [json.loads(ln) for ln in (run.directory / "attempts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "node",
    [
        pytest.param(0, id="the first, with the batch script"),
        pytest.param(2, id="another", marks=pytest.mark.long),  # the chaos kills others as well
    ],
)
def test_a_node_is_lost_in_mid_epoch(
    node: int, cluster: Cluster, tmp_path: Path, undisturbed: Run
) -> None:
    run = submit(cluster, tmp_path)
    run.wait_for_step(33)
    cluster.node("kill-node", node)
    wait_until(lambda: not run.ranks(), "the other ranks end")
    cluster.node("start-node", node)
    run.wait_for_end()
    check_whole(run)
    assert outcome(run) == outcome(undisturbed)
    assert len([row for row in attempts(run) if row["event"] == "start"]) == 2


def test_a_node_freezes(cluster: Cluster, tmp_path: Path, undisturbed: Run) -> None:
    run = submit(cluster, tmp_path)
    run.wait_for_step(33)
    before = set(run.ranks())
    cluster.node("freeze-node", 1)
    try:
        # Three of four end by themselves; the frozen one cannot.
        wait_until(lambda: len(before & set(run.ranks())) <= 1, "the other ranks end", 120)
    finally:
        cluster.node("thaw-node", 1)
    run.wait_for_end()
    check_whole(run)
    assert outcome(run) == outcome(undisturbed)


def test_a_rank_is_killed(cluster: Cluster, tmp_path: Path, undisturbed: Run) -> None:
    run = submit(cluster, tmp_path)
    run.wait_for_step(33)
    kill(sorted(run.ranks())[1], signal.SIGKILL)
    run.wait_for_end()
    check_whole(run)
    assert outcome(run) == outcome(undisturbed)
    assert "rank" in what_happened(run)


def test_four_nodes_then_two_under_another_stage(cluster: Cluster, tmp_path: Path) -> None:
    run = submit(cluster, tmp_path, "--deepspeed.stage", "3")
    run.wait_for_step(33)
    cluster.call("scancel", "--signal=USR2", run.job)
    wait_until(lambda: run.history()[-1]["event"] == "requeued", "it saved and left")
    cluster.call("scancel", run.job)
    wait_until(lambda: cluster.state(run.job) == "CANCELLED", "the first job is gone")
    saved = int(
        [row for row in run.history() if row["event"] == "ended"][-1]["progress"].split()[1]
    )
    assert 33 <= saved < run.all_steps
    run = submit(cluster, tmp_path, "--deepspeed.stage", "1", nodes=2)
    run.wait_for_end()
    check_whole(run)
    sizes = [row["world_size"] for row in attempts(run) if row["event"] == "start"]
    assert sizes == [4, 2]


def test_a_run_longer_than_the_time_limit(cluster: Cluster, tmp_path: Path) -> None:
    """SLURM counts in minutes; a minute to start and train, two to save and leave."""
    words = ["--time", "3", "--cluster.signal-seconds", "120"]
    run = submit(cluster, tmp_path, *words, epochs=100)
    wait_until(lambda: run.history()[-1]["event"] == "requeued", "the limit was near", 240)
    ended = [row for row in run.history() if row["event"] == "ended"]
    assert ended[-1]["verdict"] == "request" and ended[-1]["what"] == "left early and saved"
    first = run.steps
    wait_until(lambda: run.steps > first or run.nudge(), "it goes on by itself", 400)
    cluster.call("scancel", run.job)
    wait_until(lambda: not run.ranks(), "it is gone")
    assert run.made() == list(range(1, run.steps + 1)), "no step lost, none repeated"
    verify_samples(run.directory, ORDER, run.steps)
