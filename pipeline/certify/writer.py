"""Write a certificate directory; certificate.json comes last, so a half-written one has none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.certify.block_store import write_atomically
from pipeline.certify.certificate import Certificate
from pipeline.certify.plots import draw_curve
from pipeline.certify.radius import Floats
from pipeline.certify.report import render_report
from pipeline.certify.tables import csv_table, latex_table
from pipeline.certify.verdicts import COLUMNS, Verdicts
from pipeline.types import Epsilon

FILES = ("certificate.json", "report.html", "curve.png", "table.csv", "table.tex", "images.tsv",
         "config.yaml", "model.safetensors")  # fmt: skip
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


def write_report(certificate: Certificate, verdicts: Verdicts, unsound_radius: Floats) -> None:
    """Write table.csv, table.tex, curve.png, report.html, and then certificate.json."""
    text = certificate.to_json()  # first: a NaN is refused before anything is written
    directory = certificate.directory
    curve = draw_curve(
        f"{certificate.model['name']} on {certificate.dataset['spec']}",
        verdicts.radius,
        unsound_radius,
        certificate.clean_accuracy,
        [(Epsilon.parse(name), share) for name, share in certificate.vra.items()],
    )
    write_atomically(directory / "table.csv", csv_table(certificate))
    write_atomically(directory / "table.tex", latex_table(certificate))
    write_atomically(directory / "curve.png", curve)
    write_atomically(directory / "report.html", render_report(certificate, verdicts, curve))
    write_atomically(directory / "certificate.json", text)


def remove_certificate(directory: Path) -> None:
    """Take an old certificate away, certificate.json first; other files are left alone."""
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
