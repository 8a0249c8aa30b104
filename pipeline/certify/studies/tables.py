"""Small tables of named numbers: as text for a terminal, as CSV for everybody else."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

Row = Mapping[str, str | int | float]


def text(rows: Sequence[Row]) -> str:
    """Columns under their names, in the order of the first row; numbers to five digits.

    Args:
        rows: at least one, all with the same names.
    """
    names = list(rows[0])
    cells = [names, *([_written(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def as_csv(rows: Sequence[Row]) -> str:
    """The same with all digits."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _written(value: str | int | float) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
