"""attempts.jsonl: what is recorded, three in vain, and what became of the time."""

import json
import os
import threading
from pathlib import Path

import pytest

from pipeline.training import account
from pipeline.training.account import account_of, duration
from pipeline.training.attempts import DRAWING, NAME, Attempt, Reason, progress_of, read_attempts


def attempt(run: Path, reason: Reason | None = "fault", what: str = "rank 2 is gone") -> None:
    started = Attempt(run, ["node1", "node2"], 4)
    if reason is not None:
        started.end(reason, what)


def checkpoint(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)


def events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / NAME).read_text().splitlines()]


def test_what_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    run = tmp_path / "deep" / "run"
    checkpoint(run, 40)
    first = Attempt(run, ["node1", "node2"], 4)
    checkpoint(run, 60)
    first.end("request", "left on signal SIGUSR2 and saved")
    first.end("fault", "the first word is the last")
    attempt(run, None)
    start, end, second = events(run)
    assert (start.pop("time") <= end.pop("time")) and second["attempt"] == 2
    assert start == {
        "event": "start", "attempt": 1, "job": "17", "restart_count": 2,
        "nodes": ["node1", "node2"], "world_size": 4, "from_step": 40, "from_block": 0,
    }  # fmt: skip
    assert end == {
        "event": "end", "reason": "request", "what": "left on signal SIGUSR2 and saved", "step": 60,
    }  # fmt: skip
    assert [past.broke_down for past in read_attempts(run)] == [False, True]


def test_three_in_vain_are_the_last_until_somebody_starts_it_again(tmp_path: Path) -> None:
    checkpoint(tmp_path, 7)
    attempt(tmp_path)
    attempt(tmp_path, None)  # killed
    attempt(tmp_path, what="rank 3 on node2 is gone")
    with pytest.raises(
        ValueError, match=r"attempts\.jsonl: the last 3 .* step 7 .*rank 3 on node2"
    ):
        attempt(tmp_path)
    for _ in range(3):
        attempt(tmp_path)
    with pytest.raises(ValueError, match="3 attempts broke down"):
        attempt(tmp_path)


@pytest.mark.parametrize(
    "progress",
    ["checkpoints/step_000008", "certificate/bounds/0003.json", "certificate/blocks/000001.tsv"],
)
def test_progress_and_requests_are_not_in_vain(tmp_path: Path, progress: str) -> None:
    for _ in range(3):
        attempt(tmp_path)
    (tmp_path / progress).mkdir(parents=True)
    attempt(tmp_path)
    attempt(tmp_path)
    attempt(tmp_path, "request")
    attempt(tmp_path)
    attempt(tmp_path)


def test_a_first_start_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    attempt(tmp_path / "runs" / "name", "refused")
    assert not list(tmp_path.iterdir())
    attempt(tmp_path, "fault")
    attempt(tmp_path, "refused")
    assert [event["event"] for event in events(tmp_path)] == ["start", "end"] * 2


def test_whoever_ends_it_second_returns_when_the_first_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Attempt(tmp_path / "run", ["node1"], 2)
    writing, go_on = threading.Event(), threading.Event()
    unlink = Path.unlink

    def slow(self: Path) -> None:
        writing.set()
        assert go_on.wait(10)
        unlink(self)

    monkeypatch.setattr(Path, "unlink", slow)
    first = threading.Thread(target=started.end, args=("refused", "no such file"))
    first.start()
    assert writing.wait(10)
    second = threading.Thread(target=started.end, args=("refused", "rank 1 ended"))
    second.start()  # the heartbeat, which ends the process when this is over
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    second.join(10)
    assert not (tmp_path / "run").exists()
    first.join(10)


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    attempt(tmp_path)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"event": "sta')
    attempt(tmp_path)
    assert [past.start["attempt"] for past in read_attempts(tmp_path)] == [1, 2]


def test_the_time_of_a_run_that_was_killed_once(tmp_path: Path) -> None:
    """100 s until a kill with 30 steps saved, a second start that makes the other 70 steps."""
    lines = [
        {"event": "start", "attempt": 1, "time": 1000.0, "from_step": 0, "from_block": 0},
        {"event": "start", "attempt": 2, "time": 1090.0, "from_step": 30, "from_block": 0},
        {"event": "end", "reason": "refused", "what": "a mistake", "time": 1091.0, "step": 30},
        {"event": "start", "attempt": 3, "time": 1100.0, "from_step": 30, "from_block": 0},
        {"event": "start", "attempt": 4, "time": 9000.0, "from_step": 100, "from_block": 2},
    ]
    (tmp_path / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [{"step": step, "seconds": {"data": 0.5, "forward": 1.5}} for step in range(1, 101)]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"step": 100}]) + '{"st')
    os.utime(metrics, (1250.0, 1250.0))  # the last row; what comes later is certification
    found = account_of(tmp_path)
    assert found == account.Account(2, 250.0, 200.0, 40.0) and found.share == 0.8
    assert found.sentence() == "80.0% of 4 min 10 s trained; 2 restarts, 40 s lost to them"


def test_a_run_of_an_older_version_has_no_account(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert account_of(tmp_path) is None
    attempt(tmp_path)
    assert account_of(tmp_path) is None


def test_durations() -> None:
    texts = [duration(seconds) for seconds in (-1, 41.4, 725, 12_000, 353_000)]
    assert texts == ["0 s", "41 s", "12 min 5 s", "3 h 20 min", "4 d 2 h"]


def test_drawn_batches_are_progress(tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "out.beton.drawn"
    run.mkdir()
    folder.mkdir()
    assert progress_of(run) == (0, 0)
    (folder / "00000000.images.npy").touch()
    (run / DRAWING).write_text(f"{folder}\n")
    assert progress_of(run) == (0, 1)
