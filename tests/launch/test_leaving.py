"""How ranks of the real command leave: asked by signals, robbed of a rank, refused, given up."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from pipeline.training.attempts import NAME, Attempt
from tests.distributed.processes import ROOT, Ranks
from tests.training.test_resume import final, settings

DOOR = str(ROOT / "launch" / "train.py")


def config_file(folder: Path, **changes: dict) -> Path:
    """20 steps an epoch, and no certification unless asked for."""
    folder.mkdir(exist_ok=True)
    tree = settings(folder).model_dump(mode="json")
    tree["training"].update(batch_size=60, epochs=8)
    tree["checkpoint"].update(every_steps=7, keep=2)
    tree["cluster"].update(silence=12)
    for section, values in changes.items():
        tree[section].update(values)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def rows(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count('"step", "step"') if metrics.exists() else 0


def disturbed(
    words: Sequence[str], folder: Path, size: int, number: signal.Signals, *ranks: int
) -> tuple[list[int], str]:
    """Start, wait until some steps are made, send a signal; statuses and all output."""
    run = folder / "tiny"
    before = rows(run)
    with Ranks(words, size, folder) as started:
        # A start that goes on first cuts rows away, so a change of either sign.
        started.wait_until(lambda: rows(run) != before)
        now = rows(run)
        started.wait_until(lambda: rows(run) > now + 2)
        started.send(number, *ranks)
        return started.statuses(), started.outputs()


def ends(run: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in (run / NAME).read_text().splitlines()]
    return [(line["reason"], line["what"]) for line in lines if line["event"] == "end"]


def test_asked_and_robbed_and_in_the_end_the_same_bits(tmp_path: Path) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    with Ranks([DOOR, "--config", str(config_file(calm))], 2, calm) as started:
        assert started.statuses() == [0, 0], started.outputs()

    words = [DOOR, "--config", str(config_file(wild))]
    statuses, said = disturbed(words, wild, 2, signal.SIGUSR2)
    assert statuses == [75, 75] and "on signal SIGUSR2 and saved" in said, said
    statuses, said = disturbed(words, wild, 2, signal.SIGTERM, 1)  # one is enough
    assert statuses == [75, 75] and "on signal SIGTERM and saved" in said, said
    statuses, said = disturbed(words, wild, 2, signal.SIGKILL, 1)
    assert statuses == [75, -9] and said.count("error: rank 1 on node1 is gone") == 1, said
    statuses, said = disturbed(words, wild, 2, signal.SIGINT)
    assert statuses == [130, 130] and "on signal SIGINT and saved" in said, said
    assert "Traceback" not in said
    with Ranks(words, 2, wild) as started:
        assert started.statuses() == [0, 0], started.outputs()
        assert "4 restarts" in started.output(0)

    (mine, my_rows), (whole, all_rows) = final(wild / "tiny"), final(calm / "tiny")
    assert mine.step == whole.step and my_rows == all_rows
    for name, tensor in whole.tensors.part("model").items():
        assert torch.equal(mine.tensors.whole("model", name), tensor), name
    found = ends(wild / "tiny")
    reasons = [reason for reason, _ in found]
    assert reasons == ["request", "request", "fault", "request", "finished"]
    assert "rank 1 on node1 is gone" in found[2][1]
    logs = [(wild / "tiny" / "logs" / f"rank_000{rank}.log").read_text() for rank in (0, 1)]
    for rank, log in enumerate(logs):
        assert all(f"Z rank {rank} node{rank} " in line for line in log.splitlines())
        assert log.count("starts as process") == 5 and "going on after step" in log
    assert "rank 1 on node1 is gone" in logs[0]


def alone(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DOOR, "--config", str(config), *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


def test_three_attempts_in_vain_are_given_up_and_a_person_starts_again(tmp_path: Path) -> None:
    config = config_file(tmp_path, training={"epochs": 1})
    for _ in range(3):
        Attempt(tmp_path / "tiny", ["node1"], 1).end("fault", "rank 3 on node2 is gone")
    given_up = alone(config)
    assert given_up.returncode == 1, given_up.stdout + given_up.stderr
    (line,) = given_up.stderr.splitlines()
    assert line.startswith("error: ") and "the last 3 attempts broke down" in line
    again = alone(config)
    assert again.returncode == 0, again.stderr


WORKER = """
import os, sys, time
from pathlib import Path
from pipeline import config, run
from pipeline.outcome import exit_status

file, how = sys.argv[1:]
words = []
if os.environ["RANK"] == "1":
    if how == "missing":
        words = ["--data.train", "/nowhere/train.beton"]
    if how == "crash":
        from pipeline.training.display import Display
        def crash(self, record):
            raise KeyError("lost in thought")
        Display.on_step_end = crash
if how == "slow":
    from pipeline.certify.lipschitz_certifier import LipschitzCertifier
    certify = LipschitzCertifier.certify
    def slowly(self, images, labels):
        print("certifying a block", flush=True)
        time.sleep(3)
        return certify(self, images, labels)
    LipschitzCertifier.certify = slowly
sys.exit(exit_status(lambda: run.main(config.load(Path(file), words))))
"""


def worker(tmp_path: Path, how: str, **changes: dict) -> list[str]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return [str(script), str(config_file(tmp_path, **changes)), how]


def test_what_is_missing_on_one_node_ends_all_at_once(tmp_path: Path) -> None:
    with Ranks(worker(tmp_path, "missing"), 3, tmp_path) as ranks:
        assert ranks.statuses() == [1, 1, 1], ranks.outputs()
        for rank in range(3):
            if rank == 0 or ranks.output(rank):  # others may be ended before they say the same
                *_, line = ranks.output(rank).splitlines()
                assert line.startswith("error: ") and "/nowhere/train.beton" in line
        assert "rank 1" in ranks.output(0) and "Traceback" not in ranks.outputs()
    assert not (tmp_path / "tiny").exists()


def test_a_crash_of_one_rank_ends_all_and_is_named(tmp_path: Path) -> None:
    with Ranks(worker(tmp_path, "crash"), 3, tmp_path) as ranks:
        assert ranks.statuses() == [70, 70, 70], ranks.outputs()
        assert "error: rank 1 on node1 ended: 'lost in thought'" in ranks.output(0)
        assert "Traceback" not in ranks.output(0) + ranks.output(2)
        assert "KeyError: 'lost in thought'" in ranks.output(1)
    assert ends(tmp_path / "tiny") == [("fault", "rank 1 on node1 ended: 'lost in thought'")]
    log = (tmp_path / "tiny" / "logs" / "rank_0001.log").read_text()
    assert "Z rank 1 node1 Traceback (most recent call last):" in log


def test_certification_leaves_between_two_blocks_and_goes_on(tmp_path: Path) -> None:
    certified = {"at_end": True, "epsilons": ["0.25"]}
    words = worker(tmp_path, "slow", training={"epochs": 1}, certification=certified)
    folder = tmp_path / "tiny" / "certificate"
    with Ranks(words, 2, tmp_path) as ranks:
        ranks.wait_until(lambda: "certifying a block" in ranks.output(1))
        ranks.send(signal.SIGUSR2, 1)  # the other one hears of it
        assert ranks.statuses() == [75, 75], ranks.outputs()
        assert "Traceback" not in ranks.outputs()
    assert (folder / "blocks" / "000001.tsv").exists() and not (folder / "report.html").exists()
    assert [reason for reason, _ in ends(tmp_path / "tiny")] == ["request"]
    words[-1] = "fast"
    with Ranks(words, 2, tmp_path) as ranks:
        assert ranks.statuses() == [0, 0], ranks.outputs()
    assert "How it was trained" in (folder / "report.html").read_text()
