"""What the uncertified images are confused with.

Notable: an image that is wrong is confused with the class it is given; one that is right, but
nearer to another class than epsilon, with that class. Both keep it from being certified.
"""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from pipeline.certify.certificate import Certificate
from pipeline.certify.radius import exceeds
from pipeline.certify.reporting.html import section, table
from pipeline.certify.verdicts import Verdicts
from pipeline.types import Epsilon

LARGEST_MATRIX = 20
"""Classes; beyond them only the commonest pairs are shown."""
PAIRS = 15


def confusions(verdicts: Verdicts, epsilon: Epsilon, classes: int) -> NDArray[np.int64]:
    """Counts of images, [K, K, 2]: label, the class it is confused with, wrong or too near.

    On the diagonal, where nothing is confused: the images certified at epsilon, and none.
    An image that ties between its label and another class is wrong, and counts with that class.
    """
    certified = exceeds(verdicts.radius, epsilon)
    near = verdicts.correct & ~certified
    tied = ~verdicts.correct & (verdicts.predict == verdicts.label)
    other = np.where(near | tied, verdicts.binding, verdicts.predict)
    other = np.where(certified, verdicts.label, other)
    counts = np.zeros((classes, classes, 2), np.int64)
    np.add.at(counts, (verdicts.label, other, near.astype(np.int64)), 1)
    return counts


def confusion_section(certificate: Certificate, verdicts: Verdicts) -> str:
    """The part of the report."""
    text = certificate.epsilons[0]
    counts = confusions(verdicts, Epsilon.parse(text), certificate.num_classes)
    body = (
        f"<p>Images that are not certified at {escape(text)}, by the class that stands in the way: "
        "the one they are taken for or, if they are classified rightly, the one that is nearer "
        "than that.</p>"
    )
    if certificate.num_classes <= LARGEST_MATRIX:
        body += _matrix(certificate.class_names, counts)
    return section("What uncertified images are confused with", body + _pairs(certificate, counts))


def _pairs(certificate: Certificate, counts: NDArray[np.int64]) -> str:
    """The commonest confusions."""
    total = counts.sum(axis=2)
    np.fill_diagonal(total, 0)
    order = np.argsort(-total, axis=None, kind="stable")[:PAIRS]
    rows = []
    for label, other in zip(*np.unravel_index(order, total.shape), strict=True):
        if total[label, other]:
            wrong, near = counts[label, other].tolist()
            names = certificate.class_names[label], certificate.class_names[other]
            rows.append((f"{names[0]} → {names[1]}", f"{wrong:,}", f"{near:,}"))
    if not rows:
        return "<p>None: every image is certified.</p>"
    return table(["label → in the way", "taken for it", "right, but too near"], rows, numeric=True)


def _matrix(names: list[str], counts: NDArray[np.int64]) -> str:
    """A heat table: rows are labels, the diagonal is what is certified."""
    total = counts.sum(axis=2)
    largest = max(1, int((total - np.diag(np.diag(total))).max()))
    head = "".join(
        f"<th class='slanted' title='{escape(name)}'><span>{escape(name)}</span></th>"
        for name in names
    )
    lines = []
    for label, name in enumerate(names):
        cells = []
        for other in range(len(names)):
            count = int(total[label, other])
            if label == other:
                cells.append(f"<td class='certified'>{count:,}</td>")
            else:
                share = count / largest
                style = f"background:rgba(200,85,61,{0.75 * share:.2f})"
                cells.append(f"<td style='{style}'>{f'{count:,}' if count else ''}</td>")
        lines.append(f"<tr><th title='{escape(name)}'>{escape(name)}</th>{''.join(cells)}</tr>")
    return (
        f"<div class='scroll'><table class='matrix'><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        "<p class='small'>Rows are labels. On the diagonal: images that are certified.</p>"
    )
