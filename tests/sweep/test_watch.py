"""How far a run is, from what it has written so far."""

import json
from pathlib import Path

import pytest

from pipeline.sweep.grid import Point
from pipeline.sweep.watch import in_words, progress, result, seconds_left
from tests.sweep.small import certificate, finish, sweep

A, B = Point((("a", "1"),)), Point((("a", "2"),))


def step(epoch: int, loss: float | None) -> str:
    return json.dumps({"kind": "step", "epoch": epoch, "loss": loss}) + "\n"


def test_progress_is_the_last_whole_row(tmp_path: Path) -> None:
    run = sweep(tmp_path).runs[0]
    assert progress(run) == "starting"
    run.config.directory.mkdir(parents=True)
    metrics = run.config.directory / "metrics.jsonl"
    metrics.write_text("")
    assert progress(run) == "starting"
    metrics.write_text(step(0, 2.5) + step(1, 1.25))
    assert progress(run) == "epoch 2 of 40, loss 1.250"
    metrics.write_text(step(0, 2.5) + step(1, 1.25)[:20])
    assert progress(run) == "epoch 1 of 40, loss 2.500"
    metrics.write_text(step(2, None) + json.dumps({"kind": "epoch", "epoch": 2}) + "\n")
    assert progress(run) == "epoch 3 of 40, loss not finite"
    metrics.write_text(step(39, 0.5) + json.dumps({"kind": "epoch", "epoch": 39}) + "\n")
    assert progress(run) == "certifying"
    metrics.write_text(step(0, 9.0) * 5000 + step(7, 0.125))
    assert progress(run) == "epoch 8 of 40, loss 0.125"


def test_progress_of_a_length_in_steps(tmp_path: Path) -> None:
    run = sweep(tmp_path, words=("--training.steps=7",)).runs[0]
    run.config.directory.mkdir(parents=True)
    rows = [{"kind": "step", "step": 6, "epoch": 3, "loss": 0.5}]
    metrics = run.config.directory / "metrics.jsonl"
    metrics.write_text(json.dumps(rows[0]) + "\n")
    assert progress(run) == "step 6 of 7, loss 0.500"
    metrics.write_text(json.dumps({"kind": "epoch", "step": 7, "epoch": 3}) + "\n")
    assert progress(run) == "certifying"


def test_a_result_is_at_the_radius_trained_for(tmp_path: Path) -> None:
    one, other = sweep(tmp_path).runs
    finish(one, certificate(0.5, {"36/255": 0.4, "0.25": 0.25}))
    finish(other, certificate(0.5, {"36/255": 0.4}))
    assert result(one) == "clean 50.00 %, VRA 25.00 % at 0.25"
    assert result(other) == "clean 50.00 %, VRA 40.00 % at 36/255"


def test_time_left() -> None:
    assert seconds_left({}, [A], [(A, 5.0)], 1) is None
    assert seconds_left({A: [10.0, 20.0]}, [A, A], [], 1) == pytest.approx(30)
    assert seconds_left({A: [10.0]}, [A, B], [(A, 4.0)], 1) == pytest.approx(26)
    assert seconds_left({A: [10.0], B: [30.0]}, [B], [(A, 4.0)], 2) == pytest.approx(18)
    assert seconds_left({A: [10.0]}, [], [(A, 4.0), (A, 2.0)], 4) == pytest.approx(8)
    assert seconds_left({A: [10.0]}, [], [(A, 40.0)], 1) == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (3600, "60 min"), (3 * 3600 + 299, "3 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
