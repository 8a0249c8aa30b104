"""Comparisons: recomputed numbers are the certificates', pairs are counted, mistakes named."""

from __future__ import annotations

import csv
import subprocess
import sys
from math import comb
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.certify import certify, read_certificate
from pipeline.certify.reporting.compare import (
    all_epsilons,
    different_data,
    pairs,
    text_comparison,
    write_comparison,
)
from pipeline.certify.reporting.compared import read_all
from pipeline.types import Epsilon
from tests.certify.small import ArrayLoader, labelled_images, small_network


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks on the same images, and one on others; one lies inside a run."""
    folder = tmp_path_factory.mktemp("compare")
    same = labelled_images(small_network(0), 1, 200)
    other = labelled_images(small_network(0), 2, 150)
    certify(small_network(0), ArrayLoader(*same), ["2/255", "0.5"], folder / "a" / "certificate")
    certify(small_network(1), ArrayLoader(*same), ["2/255", "4/510"], folder / "b" / "certificate")
    certify(small_network(0), ArrayLoader(*other), ["1/255"], folder / "c" / "certificate")
    return [folder / "a", folder / "b" / "certificate", folder / "c"]


def test_numbers_are_those_of_the_certificates(three: list[Path]) -> None:
    folders = [three[0] / "certificate", three[1], three[2] / "certificate"]
    for one, folder in zip(read_all(three), folders, strict=True):
        certificate = read_certificate(folder)
        assert one.clean_accuracy == certificate.clean_accuracy and one.claim == "proved"
        for text, share in certificate.vra.items():
            assert one.certified(Epsilon.parse(text)) == share
        assert 0 < one.seconds < 10


def test_labels_are_what_tells_the_paths_apart(three: list[Path], tmp_path: Path) -> None:
    assert [one.label for one in read_all([three[0], three[2]])] == ["a", "c"]
    named = read_all(three[:2], ["LiResNet", "CPL"])
    assert [one.label for one in named] == ["LiResNet", "CPL"]


def test_epsilons_of_all_ascending_and_equal_ones_once(three: list[Path]) -> None:
    assert [e.text for e in all_epsilons(read_all(three))] == ["1/255", "2/255", "0.5"]


def test_pairs_are_counted_image_by_image(three: list[Path]) -> None:
    compared = read_all(three)
    (pair,) = pairs(compared, [Epsilon.parse("2/255")])  # the third is of other images
    one, other = (each.radius > 2 / 255 for each in compared[:2])
    assert pair.only_first == (one & ~other).sum() > 0
    assert pair.only_second == (other & ~one).sum()
    n, k = pair.only_first + pair.only_second, min(pair.only_first, pair.only_second)
    exact = min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)
    assert pair.p_value == pytest.approx(exact)


def test_pairs_behind_other_images_are_shares_of_their_own(three: list[Path]) -> None:
    other, first, second = read_all([three[2], *three[:2]])
    assert len(other.index) != len(first.index)
    epsilon = Epsilon.parse("2/255")
    (pair,) = pairs([other, first, second], [epsilon])
    assert pair.images == 200
    expected = second.certified(epsilon) - first.certified(epsilon)
    assert pair.difference == pytest.approx(expected, abs=1e-12) and expected != 0
    assert f"({100 * expected:+.2f} points" in text_comparison([other, first, second], [epsilon])


def test_different_images_are_named_in_every_output(three: list[Path], tmp_path: Path) -> None:
    compared = read_all(three)
    write_comparison(compared, all_epsilons(compared), tmp_path / "differ")
    warning = different_data(compared)
    assert warning is not None and "(a, b/certificate on arrays; c on arrays)" in warning
    assert (tmp_path / "differ" / "comparison.tex").read_text().startswith(f"% {warning}\n")
    assert different_data(compared[:2]) is None
    write_comparison(compared[:2], all_epsilons(compared), tmp_path / "same")
    assert (tmp_path / "same" / "comparison.tex").read_text().startswith(r"\begin")


def test_long_epsilons_stand_apart(three: list[Path]) -> None:
    long = Epsilon.parse("0.00784313725490196078")
    first, *_ = text_comparison(read_all(three[:2]), [Epsilon.parse("1.0"), long]).splitlines()
    assert first.split() == ["images", "clean", "1.0", long.text, "Lipschitz", "s/image", "claim"]


def test_a_certificate_and_itself_differ_in_nothing(three: list[Path]) -> None:
    compared = read_all([three[0], three[0]], ["x", "y"])
    assert all(
        p.only_first == p.only_second == 0 and p.p_value == 1
        for p in pairs(compared, all_epsilons(compared))
    )


def test_the_command_writes_everything(three: list[Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "tools/compare_certificates.py", *three, "--out", tmp_path / "out"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "NOT the same images: 2 different data sets" in done.stdout
    compared = read_all(three)
    assert text_comparison(compared, all_epsilons(compared)) in done.stdout
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert [row["certificate"] for row in rows] == [one.label for one in compared]
    assert float(rows[0]["vra_2/255"]) == compared[0].certified(Epsilon.parse("2/255"))
    points = list(csv.DictReader((tmp_path / "out" / "curves.csv").open()))
    mine = [point for point in points if point["certificate"] == compared[1].label]
    for point in mine[:: len(mine) // 7]:
        share = np.mean(compared[1].radius > float(point["radius"]))
        assert float(point["share_beyond"]) == share
    assert Image.open(tmp_path / "out" / "curves.png").size[0] > 1000
    assert (tmp_path / "out" / "comparison.tex").read_text().count(r"\\") == 4


def test_mistakes_are_named(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two or more"):
        read_all(three[:1])
    with pytest.raises(ValueError, match="3 names for 2"):
        read_all(three[:2], ["a", "b", "c"])
    with pytest.raises(ValueError, match="two certificates are called 'a'"):
        read_all(three[:2], ["a", "a"])
    with pytest.raises(ValueError, match=r"holds no certificate\.json"):
        read_all([three[0], tmp_path])
    done = subprocess.run(
        [sys.executable, "tools/compare_certificates.py", three[0], tmp_path / "none"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (
        done.returncode == 1
        and done.stderr.startswith("error: ")
        and "\n" not in done.stderr.strip()
    )


def test_damaged_certificates_are_named(three: list[Path], tmp_path: Path) -> None:
    whole = (three[1] / "certificate.json").read_text()
    path = tmp_path / "certificate.json"
    path.write_text(whole[:300])
    with pytest.raises(ValueError, match=r"certificate\.json is damaged \("):
        read_all([three[0], tmp_path])
    path.write_text(whole.replace('"device"', '"devise"', 1))
    with pytest.raises(ValueError, match=r"certificate\.json lacks device: certify again"):
        read_all([three[0], tmp_path])
    path.write_text(whole.replace('"device"', '"colour": 1, "device"', 1))
    with pytest.raises(ValueError, match=r"certificate\.json has unknown colour"):
        read_all([three[0], tmp_path])


def test_certificates_from_before_the_full_report_are_read(three: list[Path], tmp_path) -> None:
    for name in ("certificate.json", "images.tsv", "table.csv", "curve.png"):
        (tmp_path / name).write_bytes((three[1] / name).read_bytes())
    old, whole = read_all([tmp_path, three[1]], ["old", "whole"])
    assert np.array_equal(old.verdicts.radius, whole.verdicts.radius)


def test_a_changed_table_is_refused(three: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in three[1].iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    table = copy / "images.tsv"
    table.write_text(table.read_text().replace("\t1\t", "\t0\t", 1))
    with pytest.raises(ValueError, match=r"images\.tsv is missing or not the table"):
        read_all([three[0], copy])


def test_many_curves(three: list[Path], tmp_path: Path) -> None:
    compared = read_all([three[0]] * 12, [str(i) for i in range(12)])
    write_comparison(compared, all_epsilons(compared), tmp_path)
    assert (tmp_path / "curves.png").stat().st_size > 10_000
