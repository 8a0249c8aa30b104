"""Plots of radii: which share of the images is certified at which radius, and how many have it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.certify.radius import Floats
from pipeline.types import Epsilon

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = 60

SOUND, UNSOUND, GREY = "#1f5fa8", "#c8553d", "#6b7280"
CROWDED = 0.1
"""Marks nearer than this share of the axis would write over one another."""


def certified_accuracy(radius: Floats) -> tuple[Floats, Floats]:
    """The step function r ↦ share of images with radius > r, for r ≥ 0.

    Returns:
        Its steps, ascending from 0 without infinities, and its value from each step on.
    """
    steps = np.unique(np.concatenate([[0.0], radius[np.isfinite(radius)]]))
    above = len(radius) - np.searchsorted(np.sort(radius), steps, side="right")
    return steps, above / len(radius)


def draw_curve(
    title: str,
    radius: Floats,
    unsound_radius: Floats,
    clean_accuracy: float,
    vra: Sequence[tuple[Epsilon, float]],
    usual_recipe: str = "power iteration, float32",
) -> bytes:
    """A PNG of the curve, the clean accuracy and the VRA at each epsilon.

    Args:
        title: drawn above.
        radius: [N] certified radii.
        unsound_radius: [N] radii of the usual recipe, drawn thin behind.
        clean_accuracy: share of correct images.
        vra: (epsilon, share) to mark.
        usual_recipe: what that is.
    """
    # Imported here: matplotlib takes seconds to load, and every run imports this file.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.2, 4.4), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    right = _right_end(radius, [epsilon for epsilon, _ in vra])
    steps, shares = _until(right, *certified_accuracy(unsound_radius))
    label = f"usual recipe ({usual_recipe}): no proof"
    axes.step(
        steps, shares, where="post", label=label, color=UNSOUND, linewidth=1.1, linestyle="--"
    )
    steps, shares = _until(right, *certified_accuracy(radius))
    axes.step(steps, shares, where="post", label="certified", color=SOUND, linewidth=2)
    axes.fill_between(steps, shares, step="post", color=SOUND, alpha=0.08, linewidth=0)
    axes.plot(
        [0], [clean_accuracy], "o", color=GREY, clip_on=False, zorder=4, label="clean accuracy"
    )
    last, below = -math.inf, True
    for epsilon, share in sorted(vra, key=lambda mark: float(mark[0])):
        if float(epsilon) <= right:
            axes.plot([float(epsilon)] * 2, [0, share], color=GREY, linewidth=0.8, linestyle=":")
            axes.plot([float(epsilon)], [share], "o", color=SOUND, markersize=4.5, zorder=4)
            # Neighbours would overlap on one side of the curve: they take turns.
            below = float(epsilon) - last < CROWDED * right and not below
            last = float(epsilon)
            axes.annotate(
                f"{share:.1%} at {epsilon}",
                (float(epsilon), share),
                xytext=(-7, -3) if below else (7, 5),
                textcoords="offset points",
                horizontalalignment="right" if below else "left",
                verticalalignment="top" if below else "baseline",
                fontsize=8.5,
                color="#1f2937",
            )
    axes.set_xlim(0, right)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("l2 radius in the space of the stored image (values v/255)")
    axes.set_ylabel("images certified beyond the radius")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    _plain(axes)
    axes.legend(loc="upper right", framealpha=0.9, edgecolor="none", fontsize=8.5)
    return _png(figure)


class Curve(NamedTuple):
    """One of several."""

    label: str
    steps: Floats
    shares: Floats
    proved: bool = True


def draw_curves(
    curves: Sequence[Curve],
    radius: Floats,
    epsilons: Sequence[Epsilon],
    warning: str | None = None,
) -> bytes:
    """A PNG of several certified-accuracy curves.

    Args:
        curves: by `certified_accuracy`; one that is not proved is dotted.
        radius: of all of them, for the axis.
        epsilons: to mark.
        warning: drawn above, in red.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.2, 4.4), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    right = _right_end(radius, epsilons)
    for number, (label, steps, shares, proved) in enumerate(curves):
        # Ten colours, and then the same dashed: any two of twenty can be told apart.
        style = ("-" if number < 10 else "--") if proved else ":"
        drawn = _until(right, steps, shares)
        axes.step(*drawn, style, where="post", label=label, color=f"C{number % 10}", linewidth=1.6)
    for epsilon in epsilons:
        if float(epsilon) <= right:
            axes.axvline(float(epsilon), color=GREY, linewidth=0.8, linestyle=":")
    if warning:
        axes.set_title(warning, loc="left", fontsize=9, color=UNSOUND, wrap=True)
    axes.set_xlim(0, right)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("l2 radius in the space of the stored image (values v/255)")
    axes.set_ylabel("images certified beyond the radius")
    _plain(axes)
    axes.legend(loc="upper right", framealpha=0.9, edgecolor="none", fontsize=8.5)
    return _png(figure)


def draw_histogram(
    radius: Floats, correct: NDArray[np.bool_], epsilons: Sequence[Epsilon]
) -> bytes:
    """A PNG that counts images by certified radius, the misclassified in a bar of their own.

    Args:
        radius: [N] certified radii.
        correct: [N].
        epsilons: to mark.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.2), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    right = _right_end(radius, epsilons)
    shown = np.minimum(radius[correct], right)  # an infinite radius stands in the last bar
    edges = np.linspace(0, right, BARS + 1).tolist()
    axes.hist(shown, edges, color=SOUND, alpha=0.85, label="correct, by certified radius")
    wrong, width = int((~correct).sum()), right / BARS
    tallest = int(np.histogram(shown, edges)[0].max())
    # Many misclassified must not press the others flat.
    top = 1.25 * (min(max(tallest, wrong), 2 * tallest) or wrong)
    label = f"misclassified: {wrong:,}" + (" (the bar is cut)" if wrong > top else "")
    axes.bar(-2 * width, wrong, width * 1.6, color=UNSOUND, alpha=0.8, label=label)
    axes.set_ylim(0, top)
    for epsilon in epsilons:
        if float(epsilon) <= right:
            axes.axvline(float(epsilon), color=GREY, linewidth=0.8, linestyle=":")
            axes.annotate(
                epsilon.text,
                (float(epsilon), 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, -2),
                textcoords="offset points",
                rotation=90,  # neighbours such as 0.25 and 72/255 would overlap
                verticalalignment="top",
                fontsize=7.5,
                color="#1f2937",
            )
    axes.set_xlim(-3.2 * width, right)
    axes.set_xlabel("certified l2 radius")
    axes.set_ylabel("images")
    _plain(axes)
    axes.legend(loc="upper right", framealpha=0.9, edgecolor="none", fontsize=8.5)
    return _png(figure)


def _plain(axes: Axes) -> None:
    """A light grid and no frame."""
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _until(right: float, steps: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """The step function drawn as far as the axis goes."""
    return np.append(steps, max(right, steps[-1])), np.append(shares, shares[-1])


def _right_end(radius: Floats, epsilons: Sequence[Epsilon]) -> float:
    """Where the axis ends: past the largest radius and past every epsilon that is reached."""
    finite = radius[np.isfinite(radius)]
    largest = float(finite.max(initial=0.0))
    if np.isinf(radius).any() or largest == 0:
        return max([largest, *map(float, epsilons)]) * 1.1 or 1.0
    return largest * 1.05
