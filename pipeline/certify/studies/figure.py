"""CRC's Figures 1 and 2: K_lb and K_ub against γ, on a logarithmic axis, a panel for each depth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import config as configs
from pipeline.certify.studies.tables import Row
from pipeline.lipschitz.plain import PlainNetwork

MARKS = {"K_lb": "o-", "K_ub (Theorem 4)": "s-", "K_ub (used)": "^--"}


@dataclass(frozen=True)
class Place:
    """Where a network is drawn."""

    panel: str
    """Its kind (`kind_of`)."""
    gamma: float
    """What it was trained with."""


def gamma_of(directory: Path) -> float:
    """The γ that a network was trained with.

    Raises:
        ValueError: it was trained by another objective than crt, or does not say by which.
    """
    try:
        objective = configs.load(directory / "config.yaml").objective
    except ValueError:
        raise ValueError(
            f"{directory} has no config.yaml of a training, which would say its gamma: leave it "
            "out, or leave out --out"
        ) from None
    if objective.name != "crt":
        raise ValueError(
            f"{directory} was trained by {objective.name}, which has no gamma to draw: leave it "
            "out, or leave out --out"
        )
    return float(objective.options.get("gamma", 0.01))


def kind_of(network: PlainNetwork) -> str:
    """Layers and activations in the papers' notation: "3×[1024], sigmoid"."""
    widths = [len(weight) for weight in network.weights]
    written = widths[:1] if len(set(widths)) == 1 else widths
    return f"{len(widths) + 1}×{written}, {', '.join(dict.fromkeys(network.functions))}"


def draw_gap(places: Sequence[Place], rows: Sequence[Row]) -> bytes:
    """A PNG: a panel for each kind of network, in the order in which they come.

    Args:
        places: of each row.
        rows: of `curvature_gap`.
    """
    # Imported here: matplotlib takes seconds to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(place.panel for place in places))
    figure = Figure(figsize=(2.4 + 3.2 * len(panels), 4.2), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(drawn, panels, strict=True):
        chosen = [number for number, place in enumerate(places) if place.panel == panel]
        chosen.sort(key=lambda number: places[number].gamma)
        gammas = [places[number].gamma for number in chosen]
        for name, style in MARKS.items():
            points = [float(rows[number][name]) for number in chosen]
            axes.plot(gammas, points, style, label=name)
        axes.set(yscale="log", xlabel="γ", title=panel)
        axes.grid(alpha=0.3)
    drawn[0].set_ylabel("curvature, mean over pairs of label and runner-up")
    drawn[-1].legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
