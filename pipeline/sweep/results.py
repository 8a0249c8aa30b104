"""From certificates to means and standard deviations.

Notable: only certificate.json is read. A run without one is listed as missing and is in no mean;
with one seed there is no standard deviation, and none is invented.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.certify import Certificate, read_certificate
from pipeline.sweep.grid import Point
from pipeline.sweep.plan import Run, Sweep, is_finished

CLEAN, LIPSCHITZ, LIPSCHITZ_UNSOUND = "clean_accuracy", "lipschitz_bound", "lipschitz_unsound"


@dataclass(frozen=True)
class Result:
    """A run and its certificate, None if it has none."""

    run: Run
    certificate: Certificate | None

    @property
    def numbers(self) -> dict[str, float]:
        """What tables are made of, shares as fractions; empty without a certificate."""
        found = self.certificate
        if found is None:
            return {}
        return {
            CLEAN: found.clean_accuracy,
            **{vra(epsilon): found.vra[epsilon] for epsilon in found.epsilons},
            **{vra_unsound(epsilon): found.vra_unsound[epsilon] for epsilon in found.epsilons},
            LIPSCHITZ: found.lipschitz_bound,
            LIPSCHITZ_UNSOUND: found.lipschitz_unsound,
            "certification_seconds": sum(found.seconds.values()),
        }


@dataclass(frozen=True)
class Statistic:
    """Of one number over seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation, with n - 1; None of a single value."""


@dataclass(frozen=True)
class Summary:
    """One point of the grid."""

    point: Point
    finished: int
    missing: list[str]
    """Names of the runs without certificate."""
    statistics: dict[str, Statistic]


def vra(epsilon: str) -> str:
    """Name of the proved VRA at an epsilon."""
    return f"vra_{epsilon}"


def vra_unsound(epsilon: str) -> str:
    """Name of the VRA by the usual recipe, which proves nothing."""
    return f"vra_unsound_{epsilon}"


def collect(sweep: Sweep) -> list[Result]:
    """Every run of the sweep with its certificate.

    Raises:
        ValueError: a certificate is of another format.
    """
    return [
        Result(run, read_certificate(run.certificate) if is_finished(run) else None)
        for run in sweep.runs
    ]


def epsilons_of(results: Sequence[Result]) -> list[str]:
    """Every epsilon of any certificate, in order of appearance."""
    found = (epsilon for r in results if r.certificate for epsilon in r.certificate.epsilons)
    return list(dict.fromkeys(found))


def summarise(sweep: Sweep, results: Sequence[Result]) -> list[Summary]:
    """Mean and standard deviation of every number over the seeds of each point.

    Raises:
        ValueError: seeds of one point were certified on different data.
    """
    return [
        _summary(point, [result for result in results if result.run.point == point])
        for point in sweep.points
    ]


def _summary(point: Point, results: Sequence[Result]) -> Summary:
    finished = [result for result in results if result.certificate is not None]
    data = {r.certificate.dataset_sha256: r for r in finished if r.certificate is not None}
    if len(data) > 1:
        one, other = (result.run.name for result in list(data.values())[:2])
        raise ValueError(
            f"{one} and {other} were certified on different images (dataset_sha256), so there is "
            "no mean over them: certify both on the same data"
        )
    columns: dict[str, list[float]] = {}
    for result in finished:
        for name, value in result.numbers.items():
            columns.setdefault(name, []).append(value)
    return Summary(
        point,
        len(finished),
        [result.run.name for result in results if result.certificate is None],
        {
            name: Statistic(
                statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None
            )
            for name, values in columns.items()
        },
    )
