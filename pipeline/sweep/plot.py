"""Certified accuracy against the one number that is swept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

from pipeline.certify.reporting.plots import GREY
from pipeline.sweep.plan import Sweep
from pipeline.sweep.results import CLEAN, Summary, vra

_LOG_SCALE_FROM = 20
"""Ratio of the largest to the smallest value from which the axis is logarithmic."""


def swept_numbers(sweep: Sweep) -> list[float] | None:
    """The value of the grid's first key at each point, if the grid is one row of numbers.

    `36/255` is a number; keys in step are drawn over the first of them.
    """
    if len(sweep.axes) != 1 or len(sweep.points) < 2:
        return None
    try:
        return [float(Fraction(point.settings[0][1])) for point in sweep.points]
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def draw_plot(sweep: Sweep, summaries: Sequence[Summary], epsilons: Sequence[str]) -> bytes | None:
    """A PNG of mean ± sd of clean accuracy and proved VRA; None where there is nothing to draw."""
    numbers = swept_numbers(sweep)
    if numbers is None or not epsilons:
        return None
    # Imported here: matplotlib takes seconds to load.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.2, 4.4), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["Blues_r"]
    columns = [(CLEAN, "clean", GREY)]
    columns += [
        (vra(epsilon), f"certified at {epsilon}", to_hex(colours(0.15 + 0.55 * i / len(epsilons))))
        for i, epsilon in enumerate(epsilons)
    ]
    pairs = sorted(zip(numbers, summaries, strict=True), key=lambda pair: pair[0])
    for name, label, colour in columns:
        drawn = [(x, s.statistics[name]) for x, s in pairs if name in s.statistics]
        axes.errorbar(
            [x for x, _ in drawn],
            [found.mean for _, found in drawn],
            [found.sd or 0.0 for _, found in drawn],
            label=label,
            color=colour,
            marker="o",
            markersize=4.5,
            capsize=3,
            linewidth=1.6,
        )
    if min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_SCALE_FROM:
        axes.set_xscale("log")
    else:
        axes.set_xticks(sorted(set(numbers)), [f"{number:g}" for number in sorted(set(numbers))])
    axes.set_xlabel(sweep.keys[0])
    axes.set_ylabel("images")
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    seeds = sorted({summary.finished for summary in summaries})
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    spread = "mean ± sd" if seeds[-1] > 1 else "one seed"
    axes.set_title(
        f"{sweep.name}: {spread}" + (f" of {count} seeds" if seeds[-1] > 1 else ""),
        loc="left", fontsize=11, fontweight="bold",
    )  # fmt: skip
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
