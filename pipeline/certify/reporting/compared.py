"""What a comparison knows of each certificate, or pass of randomized smoothing, in a directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.certify.certificate import certificate_in, read_certificate, table_lines
from pipeline.certify.radius import Floats, exceeds
from pipeline.certify.smoothing.record import RECORD, read_record
from pipeline.certify.verdicts import read_rows
from pipeline.types import Epsilon


@dataclass(frozen=True)
class Compared:
    """One of the certificates, or a pass of randomized smoothing."""

    label: str
    index: NDArray[np.int64]
    """[N], in the data set."""
    correct: NDArray[np.bool_]
    """[N]."""
    radius: Floats
    """[N]; 0 where the prediction is not the label."""
    epsilons: list[str]
    dataset: str
    dataset_sha256: str
    seconds: float
    """For each image, norm bounds and all."""
    lipschitz_bound: float | None = None
    alpha: float | None = None
    """Probability that a radius is wrong; None if it is proved."""

    @property
    def claim(self) -> str:
        """What a radius is worth."""
        return "proved" if self.alpha is None else f"{100 * (1 - self.alpha):g} % likely"

    @property
    def clean_accuracy(self) -> float:
        """Share of correct images."""
        return int(self.correct.sum()) / len(self.correct)

    def certified(self, epsilon: Epsilon) -> float:
        """Share of images whose radius is strictly above `epsilon`."""
        return int(exceeds(self.radius, epsilon).sum()) / len(self.radius)


def read_all(directories: Sequence[Path], labels: Sequence[str] | None = None) -> list[Compared]:
    """Read certificate directories.

    Args:
        directories: each a certificate, or a run with one in `certificate/`.
        labels: one for each; by default what tells the paths apart.

    Raises:
        ValueError: fewer than two, a wrong number of labels or one twice, no certificate there, or
            a changed images.tsv.
    """
    if len(directories) < 2:
        raise ValueError("give two or more certificate directories to compare")
    if labels is not None and len(labels) != len(directories):
        raise ValueError(f"--labels has {len(labels)} names for {len(directories)} certificates")
    named = list(labels) if labels else _labels(directories)
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise ValueError(f"two certificates are called {twice!r}: name them apart with --labels")
    return [_read(path, label) for path, label in zip(directories, named, strict=True)]


def _read(path: Path, label: str) -> Compared:
    if (path / RECORD).is_file():
        return _read_smoothing(path, label)
    path = certificate_in(path)
    certificate = read_certificate(path)
    lines = table_lines(path, certificate)
    verdicts, times = read_rows(lines), [float(line.split("\t")[5]) for line in lines]
    return Compared(
        label,
        np.arange(len(verdicts)),
        verdicts.correct,
        verdicts.radius,
        certificate.epsilons,
        certificate.dataset["spec"],
        certificate.dataset_sha256,
        float(np.mean(times)) + certificate.seconds["bounds"] / len(verdicts),
        lipschitz_bound=certificate.lipschitz_bound,
    )


def _read_smoothing(path: Path, label: str) -> Compared:
    record, rows = read_record(path)
    return Compared(
        label,
        rows.index,
        rows.correct,
        rows.certified_radius,
        record.epsilons,
        record.dataset,
        record.dataset_sha256,
        record.seconds_per_image,
        alpha=record.alpha,
    )


def _labels(directories: Sequence[Path]) -> list[str]:
    """The parts of the paths in which they differ."""
    parts = [list(path.resolve().parts) for path in directories]
    for end in (0, -1):
        while all(len(part) > 1 for part in parts) and len({part[end] for part in parts}) == 1:
            for part in parts:
                part.pop(end)
    return ["/".join(part) for part in parts]
