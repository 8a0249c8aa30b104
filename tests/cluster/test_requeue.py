"""Preempted, requeued, finished; and where requeue is forbidden, a successor in its place."""

import json
from pathlib import Path

from tests.cluster.conftest import Cluster, wait_until
from tests.cluster.test_plain_run import SMALL, history, submitted

STEPS = 5 * (1437 // 64)
LONGER = [*SMALL, "--training.epochs", "5", "--checkpoint.every-steps", "50"]


def steps(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    rows = [json.loads(ln) for ln in path.read_text().splitlines()] if path.is_file() else []
    return [row["step"] for row in rows if row["kind"] == "step"]


def check_finished(run: Path) -> None:
    assert steps(run) == list(range(1, STEPS + 1)), "no step lost, none repeated"
    certificate = json.loads((run / "certificate" / "certificate.json").read_text())
    assert certificate["num_images"] == 360


def test_told_to_leave_it_saves_is_requeued_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "digits"
    watching = cluster.launch(*LONGER, "--output", str(tmp_path), "--follow")
    wait_until(lambda: len(history_of(run)) > 0 and len(steps(run)) > 5, "it trains")
    job = history_of(run)[0]["job"]
    cluster.call("scancel", "--signal=USR2", job)  # what SLURM sends before it takes a job away
    wait_until(lambda: len(history_of(run)) >= 3, "the attempt was judged")
    ended = history_of(run)[1]
    assert ended["verdict"] == "request" and ended["progress"].startswith("step ")
    saved = int(ended["progress"].split()[1])
    assert 5 < saved < STEPS and steps(run)[-1] == saved
    cluster.start_now(job)
    output, _ = watching.communicate(timeout=300)
    assert watching.returncode == 0, output
    assert f"attempt {job}.0: left early and saved; safe: step {saved}" in output
    assert "certified 360 images" in output
    check_finished(run)
    attempts = run / "jobs" / "001" / "attempts"
    assert {path.name for path in attempts.iterdir()} == {f"{job}.0", f"{job}.1"}
    assert "going on after step" in (attempts / f"{job}.1" / "0000.log").read_text()


def test_without_requeue_a_successor_takes_its_place(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "digits"
    words = [*LONGER, "--output", str(tmp_path), "--cluster.requeue", "false"]
    job = submitted(cluster.launched(*words))
    wait_until(lambda: len(steps(run)) > 5, "it trains")
    cluster.call("scancel", "--signal=USR2", job)
    wait_until(lambda: len(history_of(run)) >= 3, "a successor is submitted")
    successor = history_of(run)[2]
    assert successor["event"] == "submitted" and successor["after"] == job
    assert successor["job"] != job
    output = cluster.launched(*words, "--follow")  # finds the successor by itself
    assert f"has job {successor['job']} already" in output
    assert "certified 360 images" in output
    check_finished(run)
    assert history(run)[-1]["verdict"] == "finished"
    assert cluster.state(job) in {"COMPLETED", "FAILED"}


def test_told_to_leave_before_anything_is_loaded_it_is_requeued(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = tmp_path / "digits"
    job = submitted(cluster.launched(*LONGER, "--output", str(tmp_path)))
    said = run / "jobs" / "001" / f"{job}_0_log.out"
    wait_until(lambda: said.is_file() and "Loading pickle" in said.read_text(), "a task starts")
    cluster.call("scancel", "--signal=USR2", job)
    wait_until(lambda: history_of(run)[-1]["event"] == "requeued", "it is requeued")
    assert history_of(run)[1]["progress"] == "the beginning"
    cluster.call("scancel", job)
    wait_until(lambda: cluster.state(job) == "CANCELLED", "it is cancelled")


def history_of(run: Path) -> list[dict]:
    return history(run) if (run / "jobs" / "001" / "history.jsonl").is_file() else []
