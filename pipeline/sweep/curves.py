"""Curves of several runs in one picture, from their metrics.jsonl: loss against steps."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path


def curve_of(directory: Path, key: str) -> list[tuple[int, float]]:
    """(step, value) of every row of the run's metrics.jsonl that has the key; null rows left out.

    Raises:
        ValueError: there is no run, or no such number in its rows.
    """
    path = directory / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{directory} is no run: it has no metrics.jsonl")
    lines = path.read_text().split("\n")[:-1]  # behind the last newline: nothing, or half a row
    rows = [json.loads(line) for line in lines]
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    if not points:
        names = sorted({name for row in rows for name, value in row.items() if _is_number(value)})
        raise ValueError(f"{path} has no {key!r}; its numbers are {', '.join(names) or 'none'}")
    return points


def draw_curves(
    directories: Sequence[Path], key: str = "loss", title: str = "", top: float | None = None
) -> bytes:
    """A PNG of the curves of some runs, labelled by their directories' names.

    Args:
        directories: of the runs.
        key: of metrics.jsonl.
        title: drawn above.
        top: what lies above is cut off, and the axis says so.

    Raises:
        ValueError: as `curve_of`, or nothing lies below `top`.
    """
    curves = [(directory.name, curve_of(directory, key)) for directory in directories]
    # Imported here: matplotlib takes seconds to load.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["viridis"]
    for number, (name, points) in enumerate(curves):
        colour = colours(0.9 * number / max(1, len(curves) - 1))
        axes.plot(*zip(*points, strict=True), label=name, color=colour, linewidth=1.5)
    axes.set_xlabel("step")
    axes.set_ylabel(key)
    if top is not None:
        least = min(value for _, points in curves for _, value in points)
        if not least < top:
            raise ValueError(f"--top {top:g} is not above {least:g}, the least {key}")
        axes.set_ylim(least - 0.05 * (top - least), top)
        if any(value > top for _, points in curves for _, value in points):
            axes.set_ylabel(f"{key} (cut at {top:g})")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
