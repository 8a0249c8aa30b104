"""Means, standard deviations and tables against `statistics` and hand-made numbers."""

import csv
import io
import statistics
from pathlib import Path

import pytest
from PIL import Image

from pipeline.sweep.results import Statistic, collect, epsilons_of, summarise
from pipeline.sweep.tables import percent, plain, write_results, write_summary
from tests.sweep.small import certificate, finish, sweep

CLEAN = {(8, 0): 0.91, (8, 1): 0.87, (8, 2): 0.883, (16, 0): 0.95}
SEEDS = (0, 1, 2)


@pytest.fixture
def made(tmp_path: Path):
    """Width 8 with three seeds, width 16 with one of three, width 32 with none."""
    found = sweep(tmp_path, "model.width=8,16,32", seeds=SEEDS)
    for run in found.runs:
        key = (int(run.point.settings[0][1]), run.seed)
        if key in CLEAN:
            vra = {"36/255": CLEAN[key] - 0.1, "0.25": CLEAN[key] ** 2}
            finish(run, certificate(CLEAN[key], vra))
    return found


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_summaries_are_what_the_standard_library_says(made) -> None:
    write_summary(made)
    full, single, empty = rows(made.directory / "summary.csv")
    for name, of in (
        ("clean_accuracy", lambda clean: clean),
        ("vra_36/255", lambda clean: clean - 0.1),
        ("vra_unsound_36/255", lambda clean: clean - 0.1 + 0.01),
        ("vra_0.25", lambda clean: clean**2),
        ("lipschitz_bound", lambda clean: 10 * clean),
    ):
        values = [of(CLEAN[8, seed]) for seed in SEEDS]
        assert float(full[f"{name}_mean"]) == pytest.approx(statistics.mean(values), rel=1e-14)
        assert float(full[f"{name}_sd"]) == pytest.approx(statistics.stdev(values), rel=1e-12)
        assert float(single[f"{name}_mean"]) == of(CLEAN[16, 0])
        assert single[f"{name}_sd"] == "" and empty[f"{name}_mean"] == ""
    assert [(row["n"], row["missing"]) for row in (full, single, empty)] == [
        ("3", "0"), ("1", "2"), ("0", "3"),
    ]  # fmt: skip


def test_results_have_a_row_a_run_and_no_number_for_a_missing_one(made) -> None:
    write_results(made)
    found = rows(made.directory / "results.csv")
    assert [(row["model.width"], row["seed"]) for row in found] == [
        (width, seed) for width in ("8", "16", "32") for seed in ("0", "1", "2")
    ]
    assert [row["state"] for row in found] == ["finished"] * 4 + ["missing"] * 5
    assert float(found[1]["clean_accuracy"]) == 0.87
    assert float(found[1]["vra_unsound_0.25"]) == 0.87**2 + 0.01
    assert float(found[1]["certification_seconds"]) == 1.5
    assert {found[4][name] for name in found[4] if "vra" in name or "clean" in name} == {""}


def test_markdown_names_what_is_missing_and_invents_no_deviation(made) -> None:
    text = write_summary(made)
    assert text == (made.directory / "summary.md").read_text()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[4:9]]
    assert table[0] == ["width", "n", "clean %", "VRA 36/255 %", "VRA 0.25 %", "Lipschitz bound"]
    sd = 100 * statistics.stdev([0.91, 0.87, 0.883])
    assert table[2][:4] == ["8", "3", f"88.77 ± {sd:.2f}", f"78.77 ± {sd:.2f}"]
    assert table[3] == ["16", "1", "95.00", "85.00", "90.25", "9.500"]
    assert table[4] == ["32", "0", "–", "–", "–", "–"]
    assert "Missing, and in no mean (5): width=16_seed1, width=16_seed2, width=32_seed0" in text
    assert len({len(line) for line in text.splitlines()[4:9]}) == 1, (
        "columns stand one below the other"
    )


def test_latex(made) -> None:
    write_summary(made)
    text = (made.directory / "summary.tex").read_text()
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrr}" and r"\end{tabular}" in lines
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert all(line.count("&") == 4 and line.endswith(r"\\") for line in body)
    assert r"$88.77 \pm 2.04$" in body[0] and r"\pm" not in body[1] and "--" in body[2]
    assert r"VRA at $36{/}255$ (\%)" in text and "% missing, and in no mean: width=32_seed2" in text


def test_latex_of_names_with_special_characters(tmp_path: Path) -> None:
    found = sweep(tmp_path, "data.classes.first,data.val=4:a_b%,5:c&d", seeds=(0,))
    for run in found.runs:
        finish(run, certificate(0.5, {"0.25": 0.4}))
    write_summary(found)
    text = (found.directory / "summary.tex").read_text()
    assert r"4 & a\_b\% & 1" in text and r"5 & c\&d & 1" in text


def test_different_images_are_not_averaged(tmp_path: Path) -> None:
    found = sweep(tmp_path)
    finish(found.runs[0], certificate(0.5, {"0.25": 0.4}))
    finish(found.runs[1], certificate(0.6, {"0.25": 0.4}, data="b" * 64))
    with pytest.raises(ValueError, match="seed0 and seed1 were certified on different images"):
        write_summary(found)
    results = collect(found)
    assert [result.certificate is not None for result in results] == [True, True]


def test_equal_values_have_no_deviation_at_all(tmp_path: Path) -> None:
    found = sweep(tmp_path, seeds=SEEDS)
    for run in found.runs:
        finish(run, certificate(0.1, {"0.3": 0.1}))
    results = collect(found)
    (summary,) = summarise(found, results)
    assert summary.statistics["clean_accuracy"] == Statistic(0.1, 0.0)
    assert epsilons_of(results) == ["0.3"]


def test_numbers_as_they_are_written() -> None:
    assert percent(Statistic(0.95372, 0.0032)) == "95.37 ± 0.32"
    assert percent(Statistic(1.0, None)) == "100.00" and percent(None) == "–"
    assert plain(Statistic(4.0, 0.0883)) == "4.000 ± 0.088" and plain(None) == "–"


@pytest.mark.parametrize(
    ("grid", "drawn"),
    [
        (["model.width=8,16"], True),
        (["epsilon.target=36/255,72/255"], True),
        (["data.classes.first,model.num_classes=4:4,6:6"], True),
        (["data.val=digits,other"], False),
        (["model.width=8,16", "model.depth=1,2"], False),
        (["model.width=8"], False),
        ([], False),
    ],
)
def test_one_swept_number_is_drawn(tmp_path: Path, grid: list[str], drawn: bool) -> None:
    found = sweep(tmp_path, *grid)
    for run in found.runs[:3]:
        finish(run, certificate(0.5, {"0.25": 0.4}))
    write_summary(found)
    picture = found.directory / "summary.png"
    assert picture.exists() == drawn
    if drawn:
        assert Image.open(picture).size[0] > 1000
