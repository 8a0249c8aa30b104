"""Verdicts: what certification says about images, one row each, and `images.tsv`.

Notable: numbers are written with 17 significant digits, which read back to the same float64, so the
table is the result and not a print of it. The first columns are those of Cohen et al. (2019), so
that existing analysis scripts read the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipeline.certify.radius import exceeds
from pipeline.types import Epsilon

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COLUMNS = (
    *("idx", "label", "predict", "radius", "correct", "time"),  # as in Cohen et al.
    *("binding", "margin", "lipschitz", "delta", "radius_float"),
)


@dataclass(frozen=True)
class Verdicts:
    """Arrays of length B, one entry for each image."""

    label: Integers
    predict: Integers
    """The class with the largest computed logit, the first of several."""
    radius: Floats
    """Certified l2 radius in the space of the stored image; 0 where misclassified, tied or not
    finite; +inf where no perturbation can change the class."""
    correct: NDArray[np.bool_]
    """The label is the predicted class, that class is strictly first, and all logits are finite."""
    binding: Integers
    """The class that minimises the radius among those not predicted."""
    margin: Floats
    """fl(f_predict − f_binding); NaN if any logit is not finite."""
    lipschitz: Floats
    """K of the two: an upper bound of the Lipschitz constant of f_predict − f_binding."""
    delta: Floats
    """An upper bound of the rounding in `margin`."""
    radius_float: Floats
    """Radius within which the float64 program itself gives the label (statement F): at most
    `radius`, and 0 where that is."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def clean_accuracy(self) -> float:
        """Share of correct images."""
        return int(self.correct.sum()) / len(self)

    def vra(self, epsilon: Epsilon) -> float:
        """Verified-robust accuracy: share of images whose radius is strictly above `epsilon`."""
        return int(exceeds(self.radius, epsilon).sum()) / len(self)

    def vra_float(self, epsilon: Epsilon) -> float:
        """The same of the float64 program (statement F)."""
        return int(exceeds(self.radius_float, epsilon).sum()) / len(self)


def concatenate(parts: Sequence[Verdicts]) -> Verdicts:
    """The rows of all parts, in order."""
    return Verdicts(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Verdicts)
        }
    )


def write_rows(verdicts: Verdicts, first: int, seconds: float) -> list[str]:
    """Lines of `images.tsv` without line ends, for images `first`, `first` + 1, ...

    Args:
        first: index of the first image in the data set.
        seconds: what each of them took.
    """
    return [
        "\t".join(
            (
                str(first + row),
                str(verdicts.label[row]),
                str(verdicts.predict[row]),
                f"{verdicts.radius[row]:.17g}",
                str(int(verdicts.correct[row])),
                f"{seconds:.6f}",
                str(verdicts.binding[row]),
                f"{verdicts.margin[row]:.17g}",
                f"{verdicts.lipschitz[row]:.17g}",
                f"{verdicts.delta[row]:.17g}",
                f"{verdicts.radius_float[row]:.17g}",
            )
        )
        for row in range(len(verdicts))
    ]


def read_rows(lines: Sequence[str]) -> Verdicts:
    """The inverse of `write_rows`.

    Raises:
        ValueError: a line that has not the columns of numbers.
    """
    cells = [line.split("\t") for line in lines]
    if any(len(row) != len(COLUMNS) for row in cells):
        raise ValueError(
            f"a row of images.tsv must have the {len(COLUMNS)} columns {', '.join(COLUMNS)}"
        )
    column = dict(zip(COLUMNS, zip(*cells, strict=True), strict=True))
    return Verdicts(
        label=np.array(column["label"], dtype=np.int64),
        predict=np.array(column["predict"], dtype=np.int64),
        radius=np.array(column["radius"], dtype=np.float64),
        correct=np.array(column["correct"], dtype=np.int64) == 1,
        binding=np.array(column["binding"], dtype=np.int64),
        margin=np.array(column["margin"], dtype=np.float64),
        lipschitz=np.array(column["lipschitz"], dtype=np.float64),
        delta=np.array(column["delta"], dtype=np.float64),
        radius_float=np.array(column["radius_float"], dtype=np.float64),
    )
