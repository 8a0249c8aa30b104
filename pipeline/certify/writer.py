"""Write a certificate directory; certificate.json comes last, so a half-written one has none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.certify.block_store import write_atomically
from pipeline.certify.certificate import Certificate
from pipeline.certify.radius import Floats
from pipeline.certify.reporting.classes import class_rows, classes_csv, classes_tex
from pipeline.certify.reporting.gallery import choose, fetch, gallery_section
from pipeline.certify.reporting.plots import draw_curve, draw_histogram
from pipeline.certify.reporting.report import render_report
from pipeline.certify.reporting.tables import csv_table, latex_table
from pipeline.certify.verdicts import COLUMNS, Verdicts
from pipeline.data.base import BlockLoader
from pipeline.types import Epsilon

FILES = (
    *("certificate.json", "report.html", "curve.png", "histogram.png"),
    *("table.csv", "table.tex", "classes.csv", "classes.tex"),
    *("images.tsv", "config.yaml", "model.safetensors"),
)
"""What a certificate directory holds, in the order in which an old one is taken away."""


def write_images(directory: Path, rows: Sequence[str]) -> str:
    """Write images.tsv with its header line; returns its sha256."""
    content = "\n".join(["\t".join(COLUMNS), *rows]).encode() + b"\n"
    write_atomically(directory / "images.tsv", content)
    return hashlib.sha256(content).hexdigest()


def write_config(directory: Path, tree: dict[str, object]) -> str:
    """Write config.yaml; returns its sha256."""
    content = yaml.safe_dump(tree, sort_keys=False).encode()
    write_atomically(directory / "config.yaml", content)
    return hashlib.sha256(content).hexdigest()


def write_report(
    certificate: Certificate,
    verdicts: Verdicts,
    unsound_radius: Floats,
    loader: BlockLoader,
    training: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the tables, the plots, report.html, and then certificate.json.

    Args:
        loader: the certified images, of which some are shown.
        training: how the network was trained, names and values, for report.html alone: a
            certificate says nothing of what no sceptic can check.
    """
    text = certificate.to_json()  # first: a NaN is refused before anything is written
    directory = certificate.directory
    marks = [(Epsilon.parse(name), share) for name, share in certificate.vra.items()]
    title = f"{certificate.model['name']} on {certificate.dataset['spec']}"
    curve = draw_curve(
        title,
        verdicts.radius,
        unsound_radius,
        certificate.clean_accuracy,
        marks,
        certificate.usual_recipe,
    )
    epsilons = [epsilon for epsilon, _ in marks]
    histogram = draw_histogram(verdicts.radius, verdicts.correct, epsilons)
    rows = class_rows(certificate, verdicts)
    groups = choose(verdicts, epsilons[0])
    gallery = gallery_section(certificate, verdicts, groups, fetch(loader, groups))
    report = render_report(certificate, verdicts, rows, curve, histogram, gallery, training)
    for name, content in (
        ("table.csv", csv_table(certificate)),
        ("table.tex", latex_table(certificate)),
        ("classes.csv", classes_csv(certificate, rows)),
        ("classes.tex", classes_tex(certificate, rows)),
        ("curve.png", curve),
        ("histogram.png", histogram),
        ("report.html", report),
    ):
        write_atomically(directory / name, content)
    write_atomically(directory / "certificate.json", text)


def remove_certificate(directory: Path) -> None:
    """Take an old certificate away, certificate.json first; other files are left alone."""
    for name in (*FILES, "attack.json"):
        (directory / name).unlink(missing_ok=True)
