"""CRC's Figures 1 and 2: K_lb and K_ub against γ, on a logarithmic axis."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from pipeline import config as configs
from pipeline.certify.studies.tables import Row

MARKS = {"K_lb": "o-", "K_ub (Theorem 4)": "s-", "K_ub (used)": "^--"}


def gamma_of(directory: Path) -> float:
    """The γ that a network was trained with.

    Raises:
        ValueError: it was trained by another objective than crt.
    """
    objective = configs.load(directory / "config.yaml").objective
    if objective.name != "crt":
        raise ValueError(
            f"{directory} was trained by {objective.name}, which has no gamma to draw: leave it "
            "out, or leave out --out"
        )
    return float(objective.options.get("gamma", 0.01))


def draw_gap(gammas: Sequence[float], rows: Sequence[Row]) -> bytes:
    """A PNG of the curves.

    Args:
        gammas: of each row.
        rows: of `curvature_gap`.
    """
    # Imported here: matplotlib takes seconds to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = sorted(range(len(rows)), key=lambda number: gammas[number])
    figure = Figure(figsize=(7.2, 4.4), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, style in MARKS.items():
        points = [float(rows[number][name]) for number in order]
        axes.plot([gammas[number] for number in order], points, style, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("γ")
    axes.set_ylabel("curvature, mean over pairs of label and runner-up")
    axes.legend()
    axes.grid(alpha=0.3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
