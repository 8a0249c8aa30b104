"""How each class fares: a table in the report, and classes.csv and classes.tex."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.certify.certificate import Certificate
from pipeline.certify.radius import exceeds
from pipeline.certify.reporting.html import folded, section, table
from pipeline.certify.reporting.latex import tabular
from pipeline.certify.verdicts import Verdicts
from pipeline.types import Epsilon

FEW = 20
"""So many classes are shown at once; of more, the best and the worst, and all on demand."""
EXTREMES = 8


@dataclass(frozen=True)
class ClassRow:
    """One class that the data set has images of."""

    label: int
    name: str
    images: int
    clean_accuracy: float
    vra: tuple[float, ...]
    """At each epsilon of the certificate, in its order."""
    binding: str
    """The class that is most often the nearest among its certified images; empty if none is."""


def class_rows(certificate: Certificate, verdicts: Verdicts) -> list[ClassRow]:
    """One row for each class with images, in order of label."""
    count = certificate.num_classes
    images = np.bincount(verdicts.label, minlength=count)

    def shares(which: np.ndarray) -> np.ndarray:
        return np.bincount(verdicts.label[which], minlength=count) / np.maximum(images, 1)

    clean = shares(verdicts.correct)
    vra = [shares(exceeds(verdicts.radius, Epsilon.parse(text))) for text in certificate.epsilons]
    return [
        ClassRow(
            label=label,
            name=certificate.class_names[label],
            images=int(images[label]),
            clean_accuracy=float(clean[label]),
            vra=tuple(float(share[label]) for share in vra),
            binding=certificate.class_names[binding] if binding is not None else "",
        )
        for label, binding in _most_binding(verdicts, count)
        if images[label]
    ]


def _most_binding(verdicts: Verdicts, count: int) -> Iterator[tuple[int, int | None]]:
    """For each label, the commonest binding class of its certified images."""
    certified = verdicts.radius > 0
    pairs = verdicts.label[certified] * count + verdicts.binding[certified]
    found, times = np.unique(pairs, return_counts=True)
    best: dict[int, tuple[int, int]] = {}
    for pair, often in zip(found.tolist(), times.tolist(), strict=True):
        label, binding = divmod(pair, count)
        if often > best.get(label, (0, 0))[0]:
            best[label] = (often, binding)
    for label in range(count):
        yield label, best[label][1] if label in best else None


def class_section(certificate: Certificate, rows: list[ClassRow]) -> str:
    """The part of the report."""
    if len(rows) <= FEW:
        return section("By class", _table(certificate, rows))
    order = sorted(rows, key=lambda row: (row.vra[0], row.clean_accuracy, -row.label))
    return section(
        "By class",
        f"<p>The {EXTREMES} classes with the highest VRA at {certificate.epsilons[0]}:</p>"
        + _table(certificate, order[: -EXTREMES - 1 : -1])
        + f"<p>The {EXTREMES} with the lowest:</p>"
        + _table(certificate, order[:EXTREMES])
        + folded(f"all {len(rows)} classes", _table(certificate, rows), opened=False),
    )


def _table(certificate: Certificate, rows: list[ClassRow]) -> str:
    head = ["class", "images", "clean", *(f"ε = {text}" for text in certificate.epsilons)]
    cells = [
        (
            row.name,
            f"{row.images:,}",
            f"{row.clean_accuracy:.1%}",
            *(f"{share:.1%}" for share in row.vra),
            row.binding or "–",
        )
        for row in rows
    ]
    return table([*head, "most often nearest"], cells, numeric=True)


def classes_csv(certificate: Certificate, rows: list[ClassRow]) -> str:
    """One line a class; shares in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    vra = [f"vra_{epsilon}" for epsilon in certificate.epsilons]
    writer.writerow(["label", "class", "images", "clean_accuracy", *vra, "most_often_nearest"])
    for row in rows:
        shares = [repr(share) for share in (row.clean_accuracy, *row.vra)]
        writer.writerow([row.label, row.name, row.images, *shares, row.binding])
    return text.getvalue()


def classes_tex(certificate: Certificate, rows: list[ClassRow]) -> str:
    """A booktabs tabular in percent, a line a class."""
    return tabular(
        ["Class", "Images", r"Clean (\%)", *certificate.epsilons],
        [
            [
                row.name,
                str(row.images),
                *(f"{100 * share:.1f}" for share in (row.clean_accuracy, *row.vra)),
            ]
            for row in rows
        ],
    )
