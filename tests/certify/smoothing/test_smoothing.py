"""Randomized smoothing: the bound, the noise, whole passes, and certificates beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import norm

from pipeline.certify.reporting.compare import (
    all_epsilons,
    pairs,
    text_comparison,
    write_comparison,
)
from pipeline.certify.reporting.compared import read_all
from pipeline.certify.smoothing.noise import noisy_copies
from pipeline.certify.smoothing.record import COLUMNS, read_record
from pipeline.certify.smoothing.smoothed import (
    ABSTAIN,
    Settings,
    SmoothedClassifier,
    clopper_pearson_lower,
)
from pipeline.certify.smoothing.whole_set import smooth
from tests.certify.small import small_network
from tests.verify.test_certified import certified

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("count", "samples"), [(1, 10), (60, 100), (99_500, 100_000), (500, 500)])
@pytest.mark.parametrize("alpha", [0.001, 0.2])
def test_the_lower_bound_is_where_the_tail_is_alpha(count: int, samples: int, alpha: float) -> None:
    """P(at least `count` of `samples`) at that probability, by its definition, 50 digits."""
    lower = clopper_pearson_lower(count, samples, alpha)
    with mpmath.workdps(50):
        p = mpmath.mpf(lower)
        tail = mpmath.fsum(
            mpmath.binomial(samples, k) * p**k * (1 - p) ** (samples - k)
            for k in range(count, min(samples, count + 2000) + 1)
        )
    assert float(tail) == pytest.approx(alpha, rel=1e-6)
    assert clopper_pearson_lower(0, samples, alpha) == 0


def linear(weight: torch.Tensor, bias: float, settings: Settings) -> SmoothedClassifier:
    """Class 1 where w·x + b > 0: smoothed it is the same, with its true distances as radii."""

    def classify(x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ weight + bias > 0).long()

    return SmoothedClassifier(classify, 2, settings)


def test_radii_of_a_linear_classifier_are_just_below_the_truth() -> None:
    """Cohen et al., Proposition 5: σΦ⁻¹(p) is the distance to the plane, whatever σ."""
    weight = torch.tensor([3.0, -4.0, 0.0, 0.0])
    image = torch.tensor([0.9, 0.2, 0.5, 0.5]).view(1, 2, 2)
    distance = (3 * 0.9 - 4 * 0.2 - 0.5) / 5
    for sigma in (0.2, 0.5):
        wanted = Settings(sigma, samples=20_000, alpha=0.001, seed=3)
        found = linear(weight, -0.5, wanted).certify(image, 0)
        assert found.predict == 1 and 0.95 * distance < found.radius <= distance
        assert found.radius == pytest.approx(sigma * norm.ppf(found.lower), rel=1e-12)
    on_the_plane = linear(weight, -1.9, Settings(0.5, samples=500)).certify(image, 0)
    assert (on_the_plane.predict, on_the_plane.radius) == (ABSTAIN, 0.0)


def test_about_alpha_of_the_radii_are_wrong_and_no_more() -> None:
    """1000 images at the same true distance, a confidence of 80 %."""
    weight, image = torch.tensor([1.0]), torch.tensor([[[0.3]]])
    smoothed = linear(weight, 0.0, Settings(0.5, samples=300, selection=20, alpha=0.2))
    radii = np.array([smoothed.certify(image, index).radius for index in range(1000)])
    wrong = (radii > 0.3).mean()
    assert 0.1 < wrong < 0.24


def test_the_class_is_chosen_and_bounded_with_different_samples() -> None:
    """With the same ones a class chosen by luck would look too probable."""
    asked: list[tuple[float, ...]] = []

    def classify(x: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(x.flatten().tolist()))
        return torch.zeros(len(x), dtype=torch.int64)

    wanted = Settings(1.0, samples=50, selection=50)
    SmoothedClassifier(classify, 2, wanted).certify(torch.zeros(1, 1, 1), 4)
    first, second = asked
    assert len(first) == len(second) == 50 and not set(first) & set(second)


def test_noise_is_a_function_of_seed_image_and_purpose() -> None:
    image = torch.full((3, 32, 32), 0.5)

    def drawn(samples: int, *key: object) -> torch.Tensor:
        return torch.cat(list(noisy_copies(image, 0.25, samples, *key)))

    many = drawn(1500, 0, 7, "estimation")
    assert many.shape == (1500, 3, 32, 32) and many.dtype == torch.float32
    assert torch.equal(many[:1100], drawn(1100, 0, 7, "estimation"))
    for other in ((1, 7, "estimation"), (0, 8, "estimation"), (0, 7, "selection")):
        assert not torch.isclose(many[:3], drawn(3, *other), atol=1e-6).any(-1).all()
    noise = (many - image) / 0.25
    assert abs(float(noise.mean())) < 4e-3 and abs(float(noise.std()) - 1) < 4e-3
    flat = noise.flatten(1)
    assert len(torch.unique(flat[:, 0])) > 1490  # no chunk is the repetition of another
    assert float((flat[:, :-1] * flat[:, 1:]).mean().abs()) < 4e-3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sigma": 0.0}, "must be positive"),
        ({"sigma": float("nan")}, "must be positive"),
        ({"sigma": 1.0, "alpha": 1.0}, "no probability"),
        ({"sigma": 1.0, "samples": 0}, "at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(**change)


WANTED = Settings(0.1, samples=400, selection=20, alpha=0.01)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(small_network(1), tmp_path_factory.mktemp("base"), 300)


@pytest.fixture(scope="module")
def done(base: Path) -> Path:
    out = base / "smoothing"
    smooth(base, out, WANTED, f"npz:{base / 'data.npz'}", ["0.05", "0.1"], every=20, threads=1)
    return out


def rows_of(directory: Path) -> list[list[str]]:
    lines = (directory / "images.tsv").read_text().splitlines()
    cells = [line.split("\t") for line in lines]
    assert tuple(cells[0]) == COLUMNS
    return [row[:5] + row[6:] for row in cells[1:]]  # time apart


def test_a_pass_writes_what_scripts_read_and_says_what_it_is(base: Path, done: Path) -> None:
    record, rows = read_record(done)
    assert rows.index.tolist() == list(range(0, 300, 20)) and record.num_images == 15
    header = (done / "images.tsv").read_text().split("\n")[0]
    assert header.startswith("idx\tlabel\tpredict\tradius\tcorrect\ttime")
    assert "PROBABILISTIC" in record.claim and not (done / "certificate.json").exists()
    labels = np.load(base / "data.npz")["label"][::20]
    assert (rows.label == labels).all() and (rows.correct == (rows.predict == labels)).all()
    assert record.accuracy == rows.correct.mean() > 0
    for text, share in record.certified.items():
        assert share == (rows.correct & (rows.radius > float(text))).mean()
    assert record.certified["0.05"] > 0 and not (done / "rows").exists()
    assert ((rows.radius > 0) == (rows.predict != ABSTAIN)).all()


def test_rows_are_the_same_for_any_threads_processes_and_after_a_kill(
    base: Path, done: Path, tmp_path: Path
) -> None:
    data = f"npz:{base / 'data.npz'}"

    class Killed(BaseException):
        pass

    count = 0

    def after_five() -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise Killed

    with pytest.raises(Killed):
        smooth(base, tmp_path / "a", WANTED, data, every=20, threads=1, leave_if_asked=after_five)
    kept = sorted((tmp_path / "a" / "rows").iterdir())
    assert 5 <= len(kept) <= 8 and not (tmp_path / "a" / "smoothing.json").exists()
    ages = {path.name: path.stat().st_mtime_ns for path in kept}
    kept[0].write_text("of another pass\nnonsense\n")
    smooth(base, tmp_path / "a", WANTED, data, ["0.05", "0.1"], every=20, threads=3)
    assert len(ages) >= 5 and rows_of(tmp_path / "a") == rows_of(done)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("tools/smooth.py", "--run", base, "--sigma", "0.1", "--samples", "400"),
        *("--selection", "20", "--alpha", "0.01", "--data", data, "--every", "20"),
        *("--epsilon", "0.05", "0.1", "--out", tmp_path / "b"),
    ]
    ended = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "PROBABILISTIC" in ended.stdout
    assert rows_of(tmp_path / "b") == rows_of(done)


def test_a_finished_pass_is_not_repeated_and_another_not_overwritten(
    base: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, before = f"npz:{base / 'data.npz'}", (done / "images.tsv").read_bytes()
    smooth(base, done, WANTED, data, ["0.05", "0.1"], every=20)
    assert "already done" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--force"):
        smooth(base, done, Settings(0.2), data, ["0.05", "0.1"], every=20)
    with pytest.raises(ValueError, match="at least 1"):
        smooth(base, done, WANTED, data, every=0)
    with pytest.raises(ValueError, match=r"images of 1×8×8, the model takes 1×4×4"):
        smooth(base, done, WANTED, "digits")
    assert (done / "images.tsv").read_bytes() == before


def test_comparisons_mark_what_is_not_proved(base: Path, done: Path, tmp_path: Path) -> None:
    compared = read_all([base, done], ["proof", "smoothing"])
    epsilons = all_epsilons(compared)
    text = text_comparison(compared, epsilons)
    assert "99 % likely" in text and "NOT proved" in text and "proved" in text
    [pair] = pairs(compared, epsilons[:1])
    assert pair.images == 15  # those of both
    radius = {int(i): r for i, r in zip(compared[0].index, compared[0].radius, strict=True)}
    mine = [radius[int(i)] > float(epsilons[0]) for i in compared[1].index]
    other = compared[1].radius > float(epsilons[0])
    assert pair.only_second == sum(b and not a for a, b in zip(mine, other, strict=True))
    write_comparison(compared, epsilons, tmp_path)
    table = (tmp_path / "comparison.csv").read_text()
    assert "99 % likely" in table and "seconds_per_image" in table
    assert r"99 \% likely" in (tmp_path / "comparison.tex").read_text()
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_changed_table_is_refused(done: Path, tmp_path: Path) -> None:
    for name in ("smoothing.json", "images.tsv"):
        (tmp_path / name).write_bytes((done / name).read_bytes())
    tree = json.loads((tmp_path / "smoothing.json").read_text())
    with (tmp_path / "images.tsv").open("a") as table:
        table.write("300\t0\t0\t9\t1\t0\t0\t1\n")
    with pytest.raises(ValueError, match="not the table"):
        read_record(tmp_path)
    (tmp_path / "smoothing.json").write_text(json.dumps(tree | {"format": "other"}))
    with pytest.raises(ValueError, match="not of the format"):
        read_record(tmp_path)
    (tmp_path / "smoothing.json").write_text("[]")
    with pytest.raises(ValueError, match="cannot be read"):
        read_record(tmp_path)
