"""The numbers of each class, against counting by hand; names that mean to do harm."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.certify import Certificate, Verdicts, certify
from pipeline.certify.reporting.classes import (
    class_rows,
    class_section,
    classes_csv,
    classes_tex,
)
from pipeline.certify.reporting.confusion import confusion_section, confusions
from pipeline.certify.reporting.latex import escaped, tabular
from pipeline.certify.verdicts import read_rows
from pipeline.types import Epsilon
from tests.certify.small import ArrayLoader, labelled_images, small_network

EPSILONS = ["2/255", "12/255"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Verdicts]:
    directory = tmp_path_factory.mktemp("classes")
    network = small_network(0)
    loader = ArrayLoader(*labelled_images(network, 3, 300), network.head.num_classes)
    certificate = certify(network, loader, EPSILONS, directory, threads=1)
    return certificate, read_rows((directory / "images.tsv").read_text().splitlines()[1:])


def test_every_number_is_a_count(finished: tuple[Certificate, Verdicts]) -> None:
    certificate, verdicts = finished
    rows = class_rows(certificate, verdicts)
    assert sum(row.images for row in rows) == 300
    for row in rows:
        here = [i for i in range(300) if verdicts.label[i] == row.label]
        assert row.images == len(here) and row.name == f"class {row.label}"
        assert row.clean_accuracy == sum(bool(verdicts.correct[i]) for i in here) / len(here)
        for text, share in zip(EPSILONS, row.vra, strict=True):
            beyond = [Fraction(float(verdicts.radius[i])) > Fraction(text) for i in here]
            assert share == sum(beyond) / len(here)
        nearest = [int(verdicts.binding[i]) for i in here if verdicts.radius[i] > 0]
        commonest = max(sorted(set(nearest)), key=nearest.count, default=None)
        assert row.binding == (f"class {commonest}" if nearest else "")


def test_the_files_say_the_same(finished: tuple[Certificate, Verdicts]) -> None:
    certificate, verdicts = finished
    rows = class_rows(certificate, verdicts)
    read = list(csv.DictReader(io.StringIO(classes_csv(certificate, rows))))
    assert [float(line["vra_2/255"]) for line in read] == [row.vra[0] for row in rows]
    assert (certificate.directory / "classes.csv").read_text() == classes_csv(certificate, rows)
    tex = classes_tex(certificate, rows)
    assert (certificate.directory / "classes.tex").read_text() == tex
    assert r"VRA at $2{/}255$ (\%)" in tex
    assert tex.count(r"\\") == len(rows) + 1


def test_classes_without_images_are_left_out(finished: tuple[Certificate, Verdicts]) -> None:
    certificate, verdicts = finished
    count = certificate.num_classes
    more = replace(
        certificate, num_classes=count + 5, class_names=[str(i) for i in range(count + 5)]
    )
    assert len(class_rows(more, verdicts)) == count


def test_nothing_certified(finished: tuple[Certificate, Verdicts]) -> None:
    certificate, verdicts = finished
    none = replace(verdicts, radius=np.zeros(300), correct=np.zeros(300, bool))
    assert all(row.binding == "" and row.vra == (0, 0) for row in class_rows(certificate, none))
    assert "–" in class_section(certificate, class_rows(certificate, none))


def test_confusions_count_every_image_once(finished: tuple[Certificate, Verdicts]) -> None:
    certificate, verdicts = finished
    counts = confusions(verdicts, Epsilon.parse("12/255"), certificate.num_classes)
    assert counts.sum() == 300
    certified = verdicts.radius > float(Fraction(12, 255))
    assert np.trace(counts[:, :, 0]) == certified.sum() and np.trace(counts[:, :, 1]) == 0
    off = counts.sum(axis=(0, 1)) - [np.trace(counts[:, :, 0]), 0]
    assert off.tolist() == [(~verdicts.correct).sum(), (verdicts.correct & ~certified).sum()]
    wrong = np.flatnonzero(~verdicts.correct & (verdicts.predict != verdicts.label))[0]
    assert counts[verdicts.label[wrong], verdicts.predict[wrong], 0] > 0


def test_a_tie_is_confused_with_the_other_class(finished: tuple[Certificate, Verdicts]) -> None:
    _, verdicts = finished
    tied = {name: getattr(verdicts, name)[:1].copy() for name in vars(verdicts)}
    tied |= {
        "label": np.array([1]), "predict": np.array([1]), "correct": np.array([False]),
        "radius": np.zeros(1), "binding": np.array([2]),
    }  # fmt: skip
    counts = confusions(Verdicts(**tied), Epsilon.parse("1"), 4)
    assert counts[1, 2].tolist() == [1, 0] and counts.sum() == 1


def test_many_classes_make_a_report_of_moderate_size(
    finished: tuple[Certificate, Verdicts],
) -> None:
    certificate, _ = finished
    rng = np.random.default_rng(0)
    count, classes = 50_000, 1000
    label = rng.integers(0, classes, count)
    predict = np.where(rng.random(count) < 0.5, label, rng.integers(0, classes, count))
    correct = predict == label
    verdicts = Verdicts(
        label=label,
        predict=predict,
        radius=np.where(correct, rng.random(count), 0.0),
        correct=correct,
        binding=(predict + 1) % classes,
        margin=rng.random(count),
        lipschitz=np.ones(count),
        delta=np.zeros(count),
        radius_float=np.zeros(count),
    )
    names = [f"n{number:08d} church, church building {number}" for number in range(classes)]
    large = replace(certificate, num_classes=classes, class_names=names)
    rows = class_rows(large, verdicts)
    html = class_section(large, rows) + confusion_section(large, verdicts)
    assert len(html) < 500_000
    assert html.count("<details>") == 1 and "matrix" not in html


def test_hostile_names_are_text(finished: tuple[Certificate, Verdicts]) -> None:
    certificate, verdicts = finished
    names = [f"<img src=x onerror=alert({i})>" for i in range(certificate.num_classes)]
    hostile = replace(certificate, class_names=names)
    html = class_section(hostile, class_rows(hostile, verdicts))
    html += confusion_section(hostile, verdicts)
    assert "<img" not in html and "&lt;img" in html


def test_latex_is_escaped() -> None:
    assert escaped(r"a_b & 50% {x} \input #1 $ ~^") == (
        r"a\_b \& 50\% \{x\} \textbackslash{}input \#1 \$ \textasciitilde{}\textasciicircum{}"
    )
    text = tabular(["", ".5"], [["A & B", "1.0"]])
    assert r"A \& B & 1.0 \\" in text and r"VRA at $.5$ (\%)" in text


def test_what_is_written_is_read_by_the_old_reader(finished: tuple[Certificate, Verdicts]) -> None:
    certificate, _ = finished
    assert {"histogram.png", "classes.csv", "classes.tex", "report.html"} <= {
        path.name for path in Path(certificate.directory).iterdir()
    }
