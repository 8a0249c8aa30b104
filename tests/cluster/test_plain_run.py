"""A run on four nodes, as a person types it; refused, cancelled, only printed."""

import json
import re
from pathlib import Path

import pytest

from pipeline import config
from pipeline.launchers import start
from tests.cluster.conftest import ROOT, Cluster, wait_until

SMALL = [
    "--nodes", "4", "--gpus-per-node", "0", "--config", "configs/digits.yaml",
    "--model.width", "8", "--model.depth", "1", "--model.features", "32",
    "--training.epochs", "2", "--training.warmup-epochs", "0.5", "--optimizer.lr", "5e-3",
]  # fmt: skip


def submitted(output: str) -> str:
    found = re.search(r"submitted job (\d+): 4 nodes x 1 task", output)
    assert found is not None, output
    return found[1]


def history(run: Path) -> list[dict]:
    lines = (run / "jobs" / "001" / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_four_nodes_train_and_certify_and_follow_shows_it(cluster: Cluster, tmp_path: Path) -> None:
    output = cluster.launched(*SMALL, "--output", str(tmp_path), "--follow")
    job = submitted(output)
    assert f"scancel {job}" in output and "--follow" in output and f"{tmp_path}/digits" in output
    assert "RUNNING on 127.0.1.[0-3]" in output
    assert "certified 360 images of 10 classes" in output and "VRA (proved)" in output
    certificate = json.loads((tmp_path / "digits" / "certificate" / "certificate.json").read_text())
    assert certificate["num_images"] == 360
    assert [row["event"] for row in history(tmp_path / "digits")] == ["submitted", "ended"]
    assert cluster.state(job) in {"COMPLETED", "COMPLETING"}

    logs = sorted((tmp_path / "digits" / "jobs" / "001" / "attempts" / f"{job}.0").glob("*.log"))
    assert [log.name for log in logs] == ["0000.log", "0001.log", "0002.log", "0003.log"]
    for rank, log in enumerate(logs):
        assert log.read_text().startswith(f"rank {rank} of 4 on ")
        assert f"rank {rank} ends with exit status 0" in log.read_text()
    # The tasks ran from the snapshot: what is imported there is compiled there.
    code = tmp_path / "digits" / "jobs" / "001" / "code"
    assert (code / "configs" / "digits.yaml").is_file()


def test_a_refused_run_is_not_requeued_and_its_sentence_is_shown(
    cluster: Cluster, tmp_path: Path
) -> None:
    # Finite arithmetic is something that cannot be known before queueing.
    words = [*SMALL, "--output", str(tmp_path), "--optimizer.lr", "1e30"]
    output = cluster.launched(*words, "--follow", status=1)
    job = submitted(output)
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: step ") and "the run stopped before the update" in last
    wait_until(lambda: cluster.state(job) == "FAILED", "the job has ended")
    ended = history(tmp_path / "digits")[-1]
    assert ended["verdict"] == "refused" and ended["attempt"] == f"{job}.0"


def test_a_cancelled_job_stays_cancelled_and_a_second_one_is_refused_before(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*SMALL, "--output", str(tmp_path), "--training.epochs", "500"]
    job = submitted(cluster.launched(*words))
    metrics = tmp_path / "digits" / "metrics.jsonl"
    wait_until(lambda: metrics.is_file() and metrics.read_text().count("\n") > 3, "it trains")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    settings = config.load(ROOT / "configs" / "digits.yaml", ["--output", str(tmp_path)])
    with pytest.raises(ValueError, match=rf"has job {job} already \(RUNNING\): add --follow"):
        start.submit(settings, [], watch=False)
    watching = cluster.launch(*words, "--follow")
    assert watching.stdout is not None
    lines = iter(watching.stdout.readline, "")
    assert any(f"job {job}: RUNNING" in line for line in lines)
    cluster.call("scancel", job)
    output, _ = watching.communicate(timeout=120)
    assert watching.returncode == 75, output
    assert "the same command goes on from the last checkpoint" in output
    wait_until(lambda: cluster.state(job) == "CANCELLED", "the job has ended")
    assert not [row for row in history(tmp_path / "digits") if row["event"] == "requeued"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--cluster.partition", "mian"],
            "'mian' is not one of this cluster: did you mean 'main'?",
        ),
        (["--cluster.partition", "main,gpu"], "'gpu' is not one of this cluster: there are main,"),
        (["--cluster.nodes", "5"], "cluster.nodes 5: partition main has 4"),
        (["--cluster.gpus_per_node", "12"], "partition main have 8: take --gpus-per-node 8"),
        # Only sbatch itself knows this one.
        (["--cluster.sbatch.begin", "noonish"], "SLURM refuses the job: "),
    ],
)
def test_what_slurm_would_refuse_is_said_before(
    cluster: Cluster,
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    defaults = ["--cluster.gpus_per_node", "0", "--training.batch_size", "60"]
    settings = config.load(
        ROOT / "configs" / "digits.yaml", ["--output", str(tmp_path), *defaults, *words]
    )
    before = cluster.call("squeue", "-h")
    with pytest.raises(ValueError) as error:
        start.submit(settings, ["python", "launch/slurm.py"], watch=False)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert cluster.call("squeue", "-h") == before
    assert not list(tmp_path.rglob("00*"))  # nothing is left behind


def test_dry_run_prints_what_would_be_submitted_and_submits_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    words = [*SMALL, "--output", str(tmp_path)]
    printed = cluster.launched(*words, "--dry-run")
    assert not list(tmp_path.iterdir())
    job = submitted(cluster.launched(*words))
    script = tmp_path / "digits" / "jobs" / "001" / f"{job}_submission.sh"
    assert script.read_text().strip() == printed.strip()
    cluster.call("scancel", job)
