"""SLURM itself takes the nodes away for a job of higher priority, and gives them back."""

from pathlib import Path

from tests.cluster.conftest import Cluster, wait_until
from tests.cluster.runs import Run, check_whole, outcome, submit


def test_preempted_it_saves_waits_and_ends_with_the_same_bits(
    cluster: Cluster, tmp_path: Path, undisturbed: Run
) -> None:
    run = submit(cluster, tmp_path)
    run.wait_for_step(33)
    words = ["-p", "high", "-N", "4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 5"]
    other = cluster.call("sbatch", "--parsable", *words).strip()
    wait_until(lambda: not run.ranks(), "the ranks left")
    wait_until(lambda: cluster.state(other) == "COMPLETED", "the other job is over")
    (ended,) = (row for row in run.history() if row["event"] == "ended")
    assert ended["verdict"] == "request" and int(ended["progress"].split()[1]) >= 33
    run.wait_for_end()
    check_whole(run)
    assert outcome(run) == outcome(undisturbed)
