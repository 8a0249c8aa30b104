"""CRM's Figure 2: distributions of certified radii, and what LipLT adds to the naive product.

The figure's curves are P(radius ≥ r) over a test set. Certificates have them already; the naive
curve of a network certified by `liplt` (Figure 2a) is computed here, from its proved layer bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.certify.certificate import read_certificate, table_lines
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.certify.radius import Floats
from pipeline.certify.reporting.plots import Curve, certified_accuracy, draw_curves
from pipeline.certify.studies.subject import open_subject
from pipeline.certify.studies.tables import Row
from pipeline.certify.verdicts import read_rows
from pipeline.lipschitz.bound import NormBound
from pipeline.progress import ProgressBar
from pipeline.types import Epsilon

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
BATCH = 256


def radii_of(directory: Path) -> Floats:
    """[N] certified radii of a certificate."""
    return read_rows(table_lines(directory, read_certificate(directory))).radius


def naive_radii(directory: Path, data: str | None = None) -> Floats:
    """[N] radii of the same network by the product of its layers' bounds.

    Args:
        directory: a certificate.
        data: dataset spec; by default the certificate's.

    Raises:
        ValueError: as `open_subject`.
    """
    certificate = read_certificate(directory)
    subject = open_subject(directory, data)
    bounds = [NormBound(layer["bound"], layer["method"]) for layer in certificate.layers]
    certifier = LipschitzCertifier(subject.network, bounds)
    found = []
    with ProgressBar("naive radii", total=len(subject.images), unit="img") as bar:
        for images, labels in zip(
            subject.images.split(BATCH), subject.labels.split(BATCH), strict=True
        ):
            with torch.no_grad():
                found.append(certifier.certify(images, labels).radius)
            bar.advance(len(images))
    return np.concatenate(found)


def quantiles(label: str, radius: Floats, epsilons: Sequence[Epsilon]) -> Row:
    """One row of numbers for a curve.

    Args:
        label: of the curve.
        radius: [N].
        epsilons: the share of images beyond each is given.
    """
    row: dict[str, str | int | float] = {"curve": label, "images": len(radius)}
    row["mean"] = float(radius[np.isfinite(radius)].mean())
    for share in QUANTILES:
        row[f"{share:.0%} quantile"] = float(np.quantile(radius, share))
    for epsilon in epsilons:
        row[f"beyond {epsilon} %"] = 100 * float((radius > float(epsilon)).mean())
    return row


def draw(curves: Sequence[tuple[str, Floats]], epsilons: Sequence[Epsilon]) -> bytes:
    """A PNG of the curves.

    Args:
        curves: labels and radii.
        epsilons: marked on the axis.
    """
    drawn = [Curve(label, *certified_accuracy(radius)) for label, radius in curves]
    return draw_curves(drawn, np.concatenate([radius for _, radius in curves]), epsilons)
