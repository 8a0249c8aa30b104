"""Data on a disk of each node, and a certification that is a job of its own on other nodes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.conftest import ROOT, Cluster
from tests.cluster.test_plain_run import SMALL

SAMPLES = {"train": 1437, "val": 360}


def rows(certificate: Path) -> list[list[str]]:
    """images.tsv without the time that each image took."""
    lines = [line.split("\t") for line in (certificate / "images.tsv").read_text().splitlines()]
    time = lines[0].index("time")
    return [line[:time] + line[time + 1 :] for line in lines]


def test_staged_on_two_nodes_then_certified_on_three(cluster: Cluster, tmp_path: Path) -> None:
    words = [*SMALL, "--output", str(tmp_path), "--data.stage", f"{tmp_path}/disk-$SLURMD_NODENAME"]
    for split in SAMPLES:
        beton = str(tmp_path / f"{split}.beton")
        subprocess.run(
            [sys.executable, "tools/write_beton.py", "--source", "digits", "--split", split,
             "--preset", "exact", "--out", beton],
            cwd=ROOT, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        words += [f"--data.{split}", beton]
    trained = [*words, "--nodes", "2", "--certification.at-end", "false", "--follow"]
    assert "finished" in cluster.launched(*trained)
    run = tmp_path / "digits"
    assert not (run / "certificate").exists()
    for node in range(2):
        disk = tmp_path / f"disk-127.0.1.{node}"
        assert sorted(path.name.split("-")[0] for path in disk.glob("*.beton")) == ["train", "val"]

    output = cluster.launched(*words, "--nodes", "3", "--task", "certify", "--follow")
    assert "submitted job" in output and "3 nodes x 1 task" in output
    assert f"certified {SAMPLES['val']} images" in output
    assert [path.name.split("-")[0] for path in tmp_path.glob("disk-127.0.1.2/*.beton")] == ["val"]

    alone = tmp_path / "alone"
    subprocess.run(
        [sys.executable, "tools/certify_val.py", "--run", str(run), "--out", str(alone)],
        cwd=ROOT, check=True, capture_output=True, timeout=300,
        env={**os.environ, "SLURMD_NODENAME": "here"},
    )  # fmt: skip
    assert rows(run / "certificate") == rows(alone), "three nodes certify what one process does"
