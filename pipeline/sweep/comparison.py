"""comparison.md: what is proved, what an attack leaves and what it costs, a line a point.

Notable: images/s and memory are those of `budget.json`, measured once for each point before any run
(`step_cost`), and not of runs that shared a machine with each other.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pipeline.certify.block_store import write_atomically
from pipeline.sweep.budget import LENGTH, Share, read, share_of
from pipeline.sweep.empirical import pgd_accuracy
from pipeline.sweep.grid import Point, short_names
from pipeline.sweep.plan import Sweep, is_finished
from pipeline.sweep.results import CLEAN, Statistic, Summary, collect, epsilons_of, summarise, vra
from pipeline.sweep.tables import aligned, percent


def write_comparison(sweep: Sweep, pgd_images: int) -> str:
    """Write comparison.md of the finished runs, and return it.

    Args:
        sweep: some of whose runs are finished.
        pgd_images: attack so many images of each finished run; 0 for no attack.

    Raises:
        ValueError: as `summarise` and `pgd_accuracy`.
        OSError: the directory cannot be written.
    """
    results = collect(sweep)
    epsilons = epsilons_of(results)
    attacked = {
        run.name: pgd_accuracy(run, pgd_images)
        for run in sweep.runs
        if pgd_images and is_finished(run)
    }
    shares = read(sweep)
    names = short_names(sweep.keys)
    head = [names[key] for key in sweep.keys] + ["n", "clean %"]
    head += [f"VRA {epsilon} %" for epsilon in epsilons]
    head += [f"PGD {epsilon} %" for epsilon in epsilons] if attacked else []
    head += ["images/s", "memory GB"] if shares else []
    rows = [head]
    for summary in summarise(sweep, results):
        cells = [value for _, value in summary.point.settings] + [str(summary.finished)]
        cells += [percent(summary.statistics.get(name)) for name in (CLEAN, *map(vra, epsilons))]
        if attacked:
            of_point = [
                attacked[run.name]
                for run in sweep.runs
                if run.point == summary.point and run.name in attacked
            ]
            cells += [  # a run may be certified at others
                percent(_statistic([found[e] for found in of_point if e in found]))
                for e in epsilons
            ]
        rows.append(cells + _cost(shares, summary.point))
    text = "\n".join(
        [
            f"# Comparison {sweep.name}",
            "",
            "Mean ± sample standard deviation over n seeds; VRA is proved on the certified images.",
            *_what_else(sweep, pgd_images, shares),
            "",
            *aligned(rows, len(sweep.keys)),
            *_missing(summarise(sweep, results)),
        ]
    )
    write_atomically(sweep.directory / "comparison.md", text + "\n")
    return text


def _what_else(sweep: Sweep, pgd_images: int, shares: Sequence[Share]) -> list[str]:
    """How the other columns were found."""
    lines = []
    if pgd_images:
        lines.append(f"PGD: 10 steps, cross-entropy, one start, {pgd_images} evenly spread images.")
    if shares:
        cost = shares[0].cost
        budget = shares[0].steps * cost.seconds
        lines.append(
            f"Every run has about {budget:.0f} s of training steps ({LENGTH}) by the step that was "
            f"measured with {cost.threads} thread(s); memory is the most that was held then."
        )
    return lines


def _cost(shares: Sequence[Share], point: Point) -> list[str]:
    """Images a second and memory of a point; nothing without a budget."""
    if not shares:
        return []
    share = share_of(shares, point)
    if share is None:
        return ["–", "–"]
    return [f"{share.images_per_second:.0f}", f"{share.cost.gigabytes:.2f}"]


def _statistic(values: list[float]) -> Statistic | None:
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Statistic(statistics.mean(values), spread)


def _missing(summaries: Sequence[Summary]) -> list[str]:
    names = [name for summary in summaries for name in summary.missing]
    return ["", f"Missing, and in no mean ({len(names)}): {', '.join(names)}."] if names else []
