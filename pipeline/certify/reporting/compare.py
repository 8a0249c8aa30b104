"""Several certificates beside each other: one plot, one table, and image by image.

Notable:
- VRA is recomputed from the radii of images.tsv, exactly, so that certificates made for different
  epsilons can be compared at any.
- Two certificates of the same images are also compared image by image: how many only the one
  certifies, how many only the other, and how likely so uneven a split is if neither is better
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
from pipeline.certify.certificate import Certificate, read_certificate, sha256_of
from pipeline.certify.radius import exceeds
from pipeline.certify.reporting.latex import tabular
from pipeline.certify.reporting.plots import certified_accuracy, draw_curves
from pipeline.certify.verdicts import Verdicts, read_rows
from pipeline.types import Epsilon


@dataclass(frozen=True)
class Compared:
    """One of the certificates."""

    label: str
    certificate: Certificate
    verdicts: Verdicts


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
    inside = path / "certificate"
    if not (path / "certificate.json").is_file() and (inside / "certificate.json").is_file():
        path = inside
    certificate = read_certificate(path)
    table = path / "images.tsv"
    if not table.is_file() or sha256_of(table) != certificate.files["images.tsv"]:
        raise ValueError(f"{table} is missing or not the table that {path} was written with")
    return Compared(label, certificate, read_rows(table.read_text().splitlines()[1:]))


def _labels(directories: Sequence[Path]) -> list[str]:
    """The parts of the paths in which they differ."""
    parts = [list(path.resolve().parts) for path in directories]
    for end in (0, -1):
        while all(len(part) > 1 for part in parts) and len({part[end] for part in parts}) == 1:
            for part in parts:
                part.pop(end)
    return ["/".join(part) for part in parts]


def all_epsilons(compared: Sequence[Compared]) -> list[Epsilon]:
    """Every epsilon of any of them, ascending."""
    found = {
        epsilon.exact: epsilon
        for one in reversed(compared)
        for epsilon in map(Epsilon.parse, one.certificate.epsilons)
    }
    return [found[exact] for exact in sorted(found)]


def pairs(compared: Sequence[Compared], epsilons: Sequence[Epsilon]) -> list[Pair]:
    """Each two certificates of the same images, at each epsilon."""
    found = []
    for first, second in combinations(compared, 2):
        if first.certificate.dataset_sha256 != second.certificate.dataset_sha256:
            continue
        for epsilon in epsilons:
            one, other = (exceeds(each.verdicts.radius, epsilon) for each in (first, second))
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
        data.setdefault(one.certificate.dataset_sha256, []).append(one)
    if len(data) == 1:
        return None
    each = "; ".join(
        f"{', '.join(one.label for one in some)} on {some[0].certificate.dataset['spec']}"
        for some in data.values()
    )
    return f"NOT the same images: {len(data)} different data sets, not comparable ({each})"


def text_comparison(compared: Sequence[Compared], epsilons: Sequence[Epsilon]) -> str:
    """What is printed."""
    width = max(len(one.label) for one in compared) + 2
    widths = [max(10, len(epsilon.text) + 2) for epsilon in epsilons]
    columns = list(zip(epsilons, widths, strict=True))
    names = "".join(f"{epsilon.text:>{wide}}" for epsilon, wide in columns)
    lines = [f"{'':<{width}}{'images':>8}{'clean':>9}{names}{'Lipschitz':>12}"]
    for one in compared:
        vra = "".join(f"{one.verdicts.vra(epsilon):>{wide}.2%}" for epsilon, wide in columns)
        lines.append(
            f"{one.label:<{width}}{len(one.verdicts):>8,}{one.verdicts.clean_accuracy:>9.2%}{vra}"
            f"{one.certificate.lipschitz_bound:>12.5g}"
        )
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
        [one.verdicts.clean_accuracy, *(one.verdicts.vra(epsilon) for epsilon in epsilons)]
        for one in compared
    ]
    rows = [
        [
            one.label,
            len(one.verdicts),
            *map(repr, shares),
            repr(one.certificate.lipschitz_bound),
            one.certificate.dataset_sha256,
        ]
        for one, shares in zip(compared, numbers, strict=True)
    ]
    head = ["certificate", "images", "clean_accuracy", *(f"vra_{text}" for text in texts)]
    write_atomically(
        out / "comparison.csv", _csv([*head, "lipschitz_bound", "dataset_sha256"], rows)
    )
    percent = [
        [
            one.label,
            *(f"{100 * share:.2f}" for share in shares),
            f"{one.certificate.lipschitz_bound:.4g}",
        ]
        for one, shares in zip(compared, numbers, strict=True)
    ]
    warning = different_data(compared)
    remark = f"% {' '.join(warning.split())}\n" if warning else ""
    table = tabular(["", r"Clean (\%)", *texts, "Lipschitz bound"], percent)
    write_atomically(out / "comparison.tex", remark + table)
    paired = [
        [p.first, p.second, p.epsilon, p.images, p.only_first, p.only_second, repr(p.p_value)]
        for p in pairs(compared, epsilons)
    ]
    columns = ["first", "second", "epsilon", "images", "only_first", "only_second", "p_value"]
    write_atomically(out / "pairs.csv", _csv(columns, paired))
    curves = [(one.label, *certified_accuracy(one.verdicts.radius)) for one in compared]
    points = [
        [label, repr(float(radius)), repr(float(share))]
        for label, radii, shares in curves
        for radius, share in zip(radii, shares, strict=True)
    ]
    write_atomically(out / "curves.csv", _csv(["certificate", "radius", "share_beyond"], points))
    radii = np.concatenate([one.verdicts.radius for one in compared])
    write_atomically(out / "curves.png", draw_curves(curves, radii, epsilons, warning))


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
