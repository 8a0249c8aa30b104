"""Curves from metrics.jsonl."""

import json
from pathlib import Path

import pytest

from pipeline.sweep.curves import curve_of
from tools.plot_curves import main


def a_run(directory: Path, losses: list[float | None]) -> Path:
    directory.mkdir()
    rows = [{"kind": "step", "step": n + 1, "loss": loss} for n, loss in enumerate(losses)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "metrics.jsonl").write_text(text + '{"kind": "epoch", "step": 9}\n{"kind": "st')
    return directory


def test_a_curve_leaves_out_what_is_no_number_and_a_torn_row(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", [2.5, None, 1.5])
    assert curve_of(run, "loss") == [(1, 2.5), (3, 1.5)]


def test_a_picture_of_two_runs(tmp_path: Path) -> None:
    runs = [str(a_run(tmp_path / name, [2.0, 1.0])) for name in "ab"]
    assert main([str(tmp_path / "curves.png"), *runs]) == 0
    assert main([str(tmp_path / "cut.png"), *runs, "--top", "1.5"]) == 0
    whole, cut = ((tmp_path / f"{name}.png").read_bytes() for name in ("curves", "cut"))
    assert whole[:4] == cut[:4] == b"\x89PNG" and whole != cut


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none"], "is no run: it has no metrics.jsonl"),
        (["a", "--key", "los"], "are loss, step"),
        (["a", "--top", "2"], "--top 2 is not above 2, the least loss"),
        (["a", "--top", "nan"], "--top nan is not above 2"),
    ],
)
def test_mistakes(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path / "a", [2.0])
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x.png"), str(tmp_path / words[0]), *words[1:]])
    assert sentence in capsys.readouterr().err
