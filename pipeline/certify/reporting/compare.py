"""Several certificates beside each other: one plot, one table, and image by image.

Notable:
- Randomized smoothing (`certify/smoothing`) is taken too, and marked wherever it stands: it is
  probabilistic. Costs stand beside the figures, in seconds an image.
- VRA is recomputed from the radii of images.tsv, exactly, so that certificates made for different
  epsilons can be compared at any.
- Two certificates of the same data set are also compared on the images of both: how many only the
  one certifies, how many only the other, and how likely so uneven a split is if neither is better
  (McNemar's exact test). Certificates of different images are never paired, and the table says so.
- Nothing is verified here; a table that is not the one that its certificate names is refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from pipeline.certify.block_store import write_atomically
from pipeline.certify.radius import exceeds
from pipeline.certify.reporting.compared import Compared
from pipeline.certify.reporting.latex import tabular
from pipeline.certify.reporting.plots import Curve, certified_accuracy, draw_curves
from pipeline.types import Epsilon


@dataclass(frozen=True)
class Pair:
    """Two certificates of the same images at one epsilon."""

    first: str
    second: str
    epsilon: str
    images: int
    only_first: int
    """Images that only the first certifies."""
    only_second: int
    p_value: float
    """Of a split at least so uneven if both were equally good, two-sided."""

    @property
    def difference(self) -> float:
        """VRA of the second less that of the first."""
        return (self.only_second - self.only_first) / self.images


def all_epsilons(compared: Sequence[Compared]) -> list[Epsilon]:
    """Every epsilon of any of them, ascending."""
    found = {
        epsilon.exact: epsilon
        for one in reversed(compared)
        for epsilon in map(Epsilon.parse, one.epsilons)
    }
    return [found[exact] for exact in sorted(found)]


def pairs(compared: Sequence[Compared], epsilons: Sequence[Epsilon]) -> list[Pair]:
    """Each two certificates of the same images, at each epsilon."""
    found = []
    for first, second in combinations(compared, 2):
        both, *places = np.intersect1d(first.index, second.index, return_indices=True)
        if first.dataset_sha256 != second.dataset_sha256 or not len(both):
            continue
        for epsilon in epsilons:
            one, other = (
                exceeds(each.radius[place], epsilon)
                for each, place in zip((first, second), places, strict=True)
            )
            only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
            differing = only_first + only_second
            p_value = binomtest(only_first, differing).pvalue if differing else 1.0
            found.append(
                Pair(
                    first.label,
                    second.label,
                    epsilon.text,
                    len(one),
                    only_first,
                    only_second,
                    p_value,
                )
            )
    return found


def different_data(compared: Sequence[Compared]) -> str | None:
    """Which certificates are of which images; None if all are of the same."""
    data: dict[str, list[Compared]] = {}
    for one in compared:
        data.setdefault(one.dataset_sha256, []).append(one)
    if len(data) == 1:
        return None
    each = "; ".join(
        f"{', '.join(one.label for one in some)} on {some[0].dataset}" for some in data.values()
    )
    return f"NOT the same images: {len(data)} different data sets, not comparable ({each})"


def text_comparison(compared: Sequence[Compared], epsilons: Sequence[Epsilon]) -> str:
    """What is printed."""
    width = max(len(one.label) for one in compared) + 2
    widths = [max(10, len(epsilon.text) + 2) for epsilon in epsilons]
    columns = list(zip(epsilons, widths, strict=True))
    names = "".join(f"{epsilon.text:>{wide}}" for epsilon, wide in columns)
    head = f"{'':<{width}}{'images':>8}{'clean':>9}{names}{'Lipschitz':>12}{'s/image':>10}  claim"
    lines = [head]
    for one in compared:
        vra = "".join(f"{one.certified(epsilon):>{wide}.2%}" for epsilon, wide in columns)
        constant = "-" if one.lipschitz_bound is None else f"{one.lipschitz_bound:.5g}"
        lines.append(
            f"{one.label:<{width}}{len(one.index):>8,}{one.clean_accuracy:>9.2%}{vra}"
            f"{constant:>12}{one.seconds:>10.3g}  {one.claim}"
        )
    if any(one.alpha is not None for one in compared):
        lines.append("\nNOT proved where a radius is only likely: randomized smoothing.")
    warning = different_data(compared)
    if warning:
        lines.append(f"\n{warning}")
    paired = pairs(compared, epsilons)
    if paired:
        lines.append("\nimage by image, on the same data set:")
    for pair in paired:
        lines.append(
            f"  at {pair.epsilon}: only {pair.first} {pair.only_first:,}, only {pair.second} "
            f"{pair.only_second:,} ({100 * pair.difference:+.2f} points, p = {pair.p_value:.2g})"
        )
    return "\n".join(lines)


def write_comparison(compared: Sequence[Compared], epsilons: Sequence[Epsilon], out: Path) -> None:
    """Write comparison.csv, comparison.tex, pairs.csv, curves.csv and curves.png into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    texts = [epsilon.text for epsilon in epsilons]
    numbers = [
        [one.clean_accuracy, *(one.certified(epsilon) for epsilon in epsilons)] for one in compared
    ]
    rows = [
        [
            one.label,
            len(one.index),
            *map(repr, shares),
            "" if one.lipschitz_bound is None else repr(one.lipschitz_bound),
            one.dataset_sha256,
            repr(one.seconds),
            one.claim,
        ]
        for one, shares in zip(compared, numbers, strict=True)
    ]
    head = ["certificate", "images", "clean_accuracy", *(f"vra_{text}" for text in texts)]
    write_atomically(
        out / "comparison.csv",
        _csv([*head, "lipschitz_bound", "dataset_sha256", "seconds_per_image", "claim"], rows),
    )
    percent = [
        [
            one.label,
            *(f"{100 * share:.2f}" for share in shares),
            "--" if one.lipschitz_bound is None else f"{one.lipschitz_bound:.4g}",
            f"{one.seconds:.2g}",
            one.claim,
        ]
        for one, shares in zip(compared, numbers, strict=True)
    ]
    warning = different_data(compared)
    remark = f"% {' '.join(warning.split())}\n" if warning else ""
    columns = ["", r"Clean (\%)", *texts, "Lipschitz bound", "s/image", "Claim"]
    table = tabular(columns, percent)
    write_atomically(out / "comparison.tex", remark + table)
    paired = [
        [p.first, p.second, p.epsilon, p.images, p.only_first, p.only_second, repr(p.p_value)]
        for p in pairs(compared, epsilons)
    ]
    names = ["first", "second", "epsilon", "images", "only_first", "only_second", "p_value"]
    write_atomically(out / "pairs.csv", _csv(names, paired))
    curves = [(one.label, *certified_accuracy(one.radius)) for one in compared]
    points = [
        [label, repr(float(radius)), repr(float(share))]
        for label, radii, shares in curves
        for radius, share in zip(radii, shares, strict=True)
    ]
    write_atomically(out / "curves.csv", _csv(["certificate", "radius", "share_beyond"], points))
    radii = np.concatenate([one.radius for one in compared])
    # In the plot the cost stands with the name, and what is not proved is dotted.
    drawn = [
        Curve(
            f"{label} ({one.claim}, {one.seconds:.2g} s an image)", steps, shares, one.alpha is None
        )
        for one, (label, steps, shares) in zip(compared, curves, strict=True)
    ]
    write_atomically(out / "curves.png", draw_curves(drawn, radii, epsilons, warning))


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
