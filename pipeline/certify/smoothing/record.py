"""The directory of a smoothing pass: smoothing.json and images.tsv.

Notable: images.tsv has the columns of Cohen et al. first, as that of a certificate has, but it is
no certificate directory: no file is called certificate.json, and the claim says what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.certify.block_store import clear_folder, write_atomically
from pipeline.certify.certificate import sha256_of
from pipeline.certify.radius import Floats, exceeds
from pipeline.certify.smoothing.smoothed import Smoothed
from pipeline.types import Epsilon

FORMAT = "certline smoothing 1"
RECORD = "smoothing.json"
TABLE = "images.tsv"
COLUMNS = ("idx", "label", "predict", "radius", "correct", "time", "count", "lower")
CLAIM = (
    "PROBABILISTIC, not proved: for each image with radius > 0, with probability at least "
    "1 - alpha over the noise that was drawn, the smoothed classifier g(x) = the most likely class "
    "of the base classifier at x + N(0, sigma^2 I) is constant within the radius (Cohen et al. "
    "2019, Theorem 1). About alpha of all radii may be wrong. The noise is pseudo-random and "
    "rounded to float32; the rounding of the base classifier is not accounted for."
)


@dataclass(frozen=True)
class Rows:
    """Columns of images.tsv, each [N]."""

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    predict: NDArray[np.int64]
    radius: Floats
    """0 where it abstains; that of the class it predicts otherwise, also where that is wrong."""
    correct: NDArray[np.bool_]
    seconds: Floats

    @property
    def certified_radius(self) -> Floats:
        """The radius where the prediction is the label, else 0."""
        return np.where(self.correct, self.radius, 0.0)

    def certified(self, epsilon: Epsilon) -> float:
        """Share of images that are correct with a radius above `epsilon`."""
        return float(exceeds(self.certified_radius, epsilon).mean())


@dataclass(frozen=True)
class Record:
    """The fields of smoothing.json, in its order."""

    format: str
    claim: str
    sigma: float
    alpha: float
    samples: int
    selection: int
    seed: int
    num_images: int
    every: int
    """Each so many-th image of the data set was taken."""
    accuracy: float
    """Share of images whose class, not abstained from, is the label."""
    abstained: float
    certified: dict[str, float]
    """Share of images that are correct with a radius above epsilon, by epsilon as written."""
    epsilons: list[str]
    seconds_per_image: float
    dataset: str
    dataset_sha256: str
    weights_sha256: str
    base: dict[str, Any]
    """The `model` section of the base classifier."""
    device: str
    versions: dict[str, str]
    files: dict[str, str]


def write_row(index: int, label: int, found: Smoothed, seconds: float) -> str:
    """One line of images.tsv, without its end."""
    cells = (
        *(index, label, found.predict, f"{found.radius:.17g}", int(found.predict == label)),
        *(f"{seconds:.6f}", found.count, f"{found.lower:.17g}"),
    )
    return "\t".join(map(str, cells))


def parse_rows(lines: Sequence[str]) -> Rows:
    """The inverse of `write_row`.

    Raises:
        ValueError: a line that has not the columns.
    """
    cells = [line.split("\t") for line in lines]
    if any(len(row) != len(COLUMNS) for row in cells):
        raise ValueError(f"a row of {TABLE} must have the columns {', '.join(COLUMNS)}")
    column = dict(zip(COLUMNS, zip(*cells, strict=True), strict=True))
    return Rows(
        index=np.array(column["idx"], dtype=np.int64),
        label=np.array(column["label"], dtype=np.int64),
        predict=np.array(column["predict"], dtype=np.int64),
        radius=np.array(column["radius"], dtype=np.float64),
        correct=np.array(column["correct"], dtype=np.int64) == 1,
        seconds=np.array(column["time"], dtype=np.float64),
    )


def write_table(directory: Path, lines: Sequence[str]) -> str:
    """Write images.tsv; its sha256."""
    content = "\n".join(["\t".join(COLUMNS), *lines]) + "\n"
    write_atomically(directory / TABLE, content)
    return hashlib.sha256(content.encode()).hexdigest()


def write_record(directory: Path, record: Record) -> None:
    """Write smoothing.json, last: the directory is complete when it is there."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(directory / RECORD, text + "\n")


def read_record(directory: Path) -> tuple[Record, Rows]:
    """Read a finished directory.

    Raises:
        ValueError: it is none, of another format, or its table was changed.
    """
    path, table = directory / RECORD, directory / TABLE
    try:
        tree = json.loads(path.read_text())
        record = Record(**tree)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): run tools/smooth.py again") from None
    if record.format != FORMAT:
        raise ValueError(f"{path} is not of the format {FORMAT!r}: run tools/smooth.py again")
    if not table.is_file() or sha256_of(table) != record.files.get(TABLE):
        raise ValueError(f"{table} is missing or not the table that {path} was written with")
    return record, parse_rows(table.read_text().splitlines()[1:])


@dataclass(frozen=True)
class RowStore:
    """Finished rows, a file each, so that a killed pass goes on where it was."""

    folder: Path
    key: str
    """Of all that a row depends on: a row of another pass is computed again."""

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:08d}.tsv"

    def write(self, index: int, line: str) -> None:
        """Store the row of an image."""
        write_atomically(self._path(index), f"{self.key}\n{line}\n")

    def read(self, index: int) -> str | None:
        """The row, or None if it is not there."""
        path = self._path(index)
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        return lines[1] if len(lines) == 2 and lines[0] == self.key else None

    def clear(self) -> None:
        """Remove the folder and what this class wrote into it."""
        clear_folder(self.folder, "[0-9]*.tsv*")
