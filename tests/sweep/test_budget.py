"""Equal time: steps from measured steps, kept, and the comparison that is made of it."""

import json
from pathlib import Path

import pytest

from pipeline.sweep import budget, comparison, parse_axis, plan
from pipeline.sweep.budget import LENGTH, divide, read
from pipeline.sweep.plan import Run
from pipeline.sweep.step_cost import StepCost, _measure
from tests.sweep.small import DIGITS, certificate, finish, sweep

WIDTHS = "model.width=8,16"
SECONDS = {8: 0.1, 16: 0.25}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Widths that have been measured; without measuring."""
    widths: list[int] = []

    def measure(config) -> StepCost:
        width = config.model.options["width"]
        widths.append(width)
        return StepCost(SECONDS[width], 0.5, 1)

    monkeypatch.setattr(budget, "measure", measure)
    return widths


def planned(tmp_path: Path, *grid: str, seeds: tuple[int, ...] = (0,)):
    axes = [parse_axis(word) for word in grid]
    return plan(DIGITS, [f"--output={tmp_path}"], axes, seeds, [LENGTH])


def test_a_slow_network_gets_fewer_steps(tmp_path: Path, measured: list[int]) -> None:
    (axis,) = divide(planned(tmp_path, WIDTHS), 10, lambda text: None)
    assert axis.keys == ("model.width", "training.steps")
    assert axis.values == (("8", "100"), ("16", "40"))
    found = plan(DIGITS, [f"--output={tmp_path}"], [axis], (0,))
    assert [run.config.training.steps for run in found.runs] == [100, 40]


def test_the_same_command_again_measures_nothing(tmp_path: Path, measured: list[int]) -> None:
    first = divide(planned(tmp_path, WIDTHS), 10, lambda text: None)
    assert divide(planned(tmp_path, WIDTHS, seeds=(0, 1)), 10, lambda text: None) == first
    assert measured == [8, 16]
    with pytest.raises(ValueError, match="is for --budget 10, not 20: set it back"):
        divide(planned(tmp_path, WIDTHS), 20, lambda text: None)


def test_a_dry_run_keeps_nothing(tmp_path: Path, measured: list[int]) -> None:
    divide(planned(tmp_path, WIDTHS), 10, lambda text: None, keep=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("grid", "seconds", "sentence"),
    [
        (WIDTHS, 0, "--budget 0 must be a number of seconds above 0"),
        (WIDTHS, 0.04, r"a step of model\.width=8 takes 0\.1 seconds"),
        ("training.steps=3,4", 10, "training.steps is what --budget works out"),
    ],
)
def test_mistakes(
    grid: str, seconds: float, sentence: str, tmp_path: Path, measured: list[int]
) -> None:
    with pytest.raises(ValueError, match=sentence):
        divide(planned(tmp_path, grid), seconds, lambda text: None)


def test_a_step_is_measured_in_a_real_loop(tmp_path: Path) -> None:
    cost = _measure(sweep(tmp_path).runs[0].config)
    assert 0 < cost.seconds < 10 and 0.05 < cost.gigabytes < 50 and cost.threads >= 1


def test_the_comparison_has_a_line_a_point(
    tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (axis,) = divide(planned(tmp_path, WIDTHS), 10, lambda text: None)
    found = plan(DIGITS, [f"--output={tmp_path}"], [axis], (0, 1))
    for number, run in enumerate(found.runs[:3]):
        others = {"72/255": 0.125} if number == 2 else {}
        finish(run, certificate(0.5 + 0.1 * number, {"36/255": 0.25} | others))

    def attacked(run: Run, images: int) -> dict[str, float]:
        return {"36/255": 0.375} | ({"72/255": 0.25} if run is found.runs[2] else {})

    monkeypatch.setattr(comparison, "pgd_accuracy", attacked)
    text = comparison.write_comparison(found, 100)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[0] == ["width", "steps", "n", "clean %", "VRA 36/255 %", "VRA 72/255 %",
                        "PGD 36/255 %", "PGD 72/255 %", "images/s", "memory GB"]  # fmt: skip
    assert cells[2][:5] == ["8", "100", "2", "55.00 ± 7.07", "25.00 ± 0.00"]
    assert cells[2][6] == "37.50 ± 0.00" and cells[2][5] == cells[2][7]  # at none of them
    assert cells[3][:8] == ["16", "40", "1", "70.00", "25.00", "12.50", "37.50", "25.00"]
    batch = found.runs[0].config.training.batch_size
    assert cells[2][8:] == [f"{batch / 0.1:.0f}", "0.50"]
    assert "Missing, and in no mean (1): width=16_steps=40_seed1." in text
    assert (tmp_path / "digits.sweep" / "comparison.md").read_text() == text + "\n"
    assert len(read(found)) == 2
    assert json.loads((tmp_path / "digits.sweep" / "budget.json").read_text())["seconds"] == 10
