"""The commands of tools/small_networks.py: from directories to a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.certify.block_store import write_atomically
from pipeline.certify.certificate import certificate_in
from pipeline.certify.studies import curvature, distribution, figure, tables
from pipeline.certify.studies.accuracies import accuracies
from pipeline.certify.studies.pairwise import pairwise_constants
from pipeline.certify.studies.subject import open_subject, plain_network
from pipeline.certify.studies.tables import Row
from pipeline.types import Epsilon


def run(command: str, csv: Path | None, options: Mapping[str, Any]) -> str:
    """Make a table.

    Args:
        command: of `COMMANDS`.
        csv: where it is written too.
        options: its arguments.

    Returns:
        The table as text.

    Raises:
        ValueError: directories or images that the table is not of; one sentence.
    """
    rows = COMMANDS[command](**options)
    if csv is not None:
        write_atomically(csv, tables.as_csv(rows))
    return tables.text(rows)


def success(
    directories: Sequence[Path], data: str | None, images: int | None, radius: float
) -> list[Row]:
    """`success`."""
    _positive("--radius", radius)
    rows = []
    for directory in directories:
        subject = open_subject(directory, data, _count("--images", images))
        certifier = curvature.certifier_of(subject.network)
        rows.append(curvature.success_rates(subject, certifier, radius))
    return rows


def gap(
    directories: Sequence[Path],
    data: str | None,
    images: int | None,
    fewest: int,
    out: Path | None,
) -> list[Row]:
    """`curvature`."""
    _count("--fewest", fewest)
    gammas = [figure.gamma_of(directory) for directory in directories] if out is not None else []
    rows, kinds = [], []
    for directory in directories:
        subject = open_subject(directory, data, _count("--images", images))
        certifier = curvature.certifier_of(subject.network)
        rows.append(curvature.curvature_gap(subject, certifier, fewest))
        if out is not None:
            kinds.append(figure.kind_of(plain_network(subject.network)))
    if out is not None:
        places = [figure.Place(*each) for each in zip(kinds, gammas, strict=True)]
        write_atomically(out, figure.draw_gap(places, rows))
    return rows


def certificates(
    directories: Sequence[Path], data: str | None, images: int, targets: Sequence[str]
) -> list[Row]:
    """`certificates`."""
    rows: list[Row] = []
    for directory in directories:
        # Twice as many are opened, so that as many are classified correctly.
        subject = open_subject(directory, data, 2 * (_count("--images", images) or 0) + 50)
        rows += curvature.certificates(subject, targets, images)
    if len({tuple(row) for row in rows}) > 1:
        raise ValueError("ReLU networks and smooth ones make different tables: give them apart")
    return rows


def local(directories: Sequence[Path], data: str | None, images: int, radius: float) -> list[Row]:
    """`local`."""
    _positive("--radius", radius)
    rows = []
    for directory in directories:
        subject = open_subject(directory, data, 2 * (_count("--images", images) or 0) + 50)
        rows.append(curvature.local_certificates(subject, radius, images))
    return rows


def pairwise(directories: Sequence[Path]) -> list[Row]:
    """`pairwise`."""
    return [row for directory in directories for row in pairwise_constants(directory)]


def radii(
    directories: Sequence[Path],
    data: str | None,
    naive: bool,
    epsilon: Sequence[str],
    out: Path | None,
) -> list[Row]:
    """`radii`."""
    epsilons = [Epsilon.parse(text) for text in epsilon]
    curves = []
    for directory in directories:
        place = certificate_in(directory)
        curves.append((str(directory), distribution.radii_of(place)))
        if naive:
            curves.append((f"{directory}, naive", distribution.naive_radii(place, data)))
    if out is not None:
        write_atomically(out, distribution.draw(curves, epsilons))
    return [distribution.quantiles(label, radius, epsilons) for label, radius in curves]


def _count(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ValueError(f"{name} {value} must be at least 1")
    return value


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} {value:g} must be positive")


COMMANDS: dict[str, Callable[..., list[Row]]] = {
    "accuracies": accuracies,
    "success": success,
    "curvature": gap,
    "certificates": certificates,
    "local": local,
    "pairwise": pairwise,
    "radii": radii,
}
