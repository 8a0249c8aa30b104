"""images.tsv: the table as it is written, and what follows from each row alone.

Notable:
- Numbers are read only in the one form that %.17g and %d write: what is parsed here is what any
  other reader parses. No hexadecimal, no underscores, no "nan" where something is claimed.
- What a row claims must follow from its own margin, delta and constant in *rational* arithmetic.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from fractions import Fraction

from pipeline.verify.head import HeadDistances
from pipeline.verify.refusal import quote, require

HEADER = "idx label predict radius correct time binding margin lipschitz delta radius_float"
COLUMNS = HEADER.split(" ")
INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")
NUMBER = re.compile(r"-?(inf|[0-9.]{1,25}(e[+-][0-9]{2,3})?)|nan")
TIME = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
LONGEST_LINE = 400
LARGEST = Fraction(sys.float_info.max)
ROUNDINGS = Fraction(1, 2**48)
"""A difference and a quotient, each rounded and lowered once more, lose less than this share."""


@dataclass(frozen=True)
class Row:
    """One image as the certificate has it."""

    index: int
    label: int
    predict: int
    radius: float
    correct: bool
    binding: int
    margin: float
    lipschitz: float
    delta: float
    radius_float: float

    def __str__(self) -> str:
        return f"image {self.index}"


def read_rows(content: bytes, count: int, classes: int) -> list[Row]:
    """The rows of images.tsv, which must be those of images 0 to `count` − 1 in order.

    Raises:
        Refusal: naming the first line that is not what it must be.
    """
    require(content.endswith(b"\n"), "images.tsv does not end with a line end")
    try:
        lines = content.decode("ascii").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        lines = []
    require(bool(lines), "images.tsv has characters that are not ASCII")
    require(lines[0] == "\t".join(COLUMNS), "images.tsv does not begin with its header line")
    rows: list[Row] = []
    for line in lines[1:]:
        row = _read_row(line, len(rows) + 2, classes)
        require(
            row.index == len(rows),
            f"images.tsv has image {row.index} where image {len(rows)} must stand",
        )
        rows.append(row)
        require(len(rows) <= count, f"images.tsv has more than the {count} rows of num_images")
    require(len(rows) == count, f"images.tsv has {len(rows)} rows, num_images is {count}")
    return rows


def check_row(
    row: Row, distances: HeadDistances, lipschitz_bound: float, radius_follows: bool = True
) -> None:
    """Whether prediction, constant and radius of one row follow from what it says.

    The constant must not be below Λ ‖w_predict − w_binding‖. The radius must be the largest that
    (margin − delta)/constant allows, up to the two downward roundings of the certifier: not above
    it in exact arithmetic, and not so far below that another number was written. A radius proved by
    curvature does not follow from its row (`radius_follows` False): it is proved from the pixels.

    Raises:
        Refusal: naming the image.
    """
    require(row.binding != row.predict, f"{row} names its predicted class as binding")
    if not row.correct:
        require(row.radius == 0, f"{row} is not correct but has the radius {row.radius!r}")
        require(
            row.label != row.predict or not row.margin > 0,
            f"{row} is marked incorrect though its label is strictly first",
        )
    else:
        require(
            row.label == row.predict, f"{row} is marked correct though it predicts another class"
        )
        require(row.margin > 0, f"{row} is marked correct though no class is strictly first")
        require(row.margin < math.inf, f"{row} is marked correct though its margin is infinite")
    require(math.isfinite(row.lipschitz), f"{row} has a constant that is not finite")
    require(
        distances.is_at_least(row.lipschitz, lipschitz_bound, row.predict, row.binding),
        f"{row} has the constant {row.lipschitz!r}, below the Lipschitz bound times the distance "
        f"of head rows {row.predict} and {row.binding}",
    )
    if row.correct and radius_follows:
        _check_radius(row)
    require(radius_follows or math.isfinite(row.radius), f"{row} has a radius that is not finite")
    require(
        row.radius_float <= row.radius,
        f"{row} has the radius_float {row.radius_float!r}, larger than its radius {row.radius!r}",
    )
    require(
        row.radius < math.inf or lipschitz_bound == 0 or not distances.upper[row.predict].any(),
        f"{row} has an infinite radius though some head row differs from its class's",
    )


def _check_radius(row: Row) -> None:
    if not math.isfinite(row.delta):
        require(row.radius == 0, f"{row} has a radius though its delta is not finite")
        return
    require(row.delta >= 0, f"{row} has the delta {row.delta!r}, which is negative")
    room = Fraction(row.margin) - Fraction(row.delta)
    if room <= 0 or row.lipschitz == 0:
        allowed = math.inf if room > 0 else 0.0
        require(
            row.radius == allowed,
            f"{row} has the radius {row.radius!r}, its margin and delta give {allowed}",
        )
        return
    exact = room / Fraction(row.lipschitz)
    require(
        math.isfinite(row.radius)
        and exact * (1 - ROUNDINGS) - Fraction(1, 2**1000) <= Fraction(row.radius) <= exact,
        f"{row} has the radius {row.radius!r}, which does not follow from its margin, delta and "
        f"constant: they give {float(min(exact, LARGEST))!r}",
    )


def _read_row(line: str, number: int, classes: int) -> Row:
    where = f"images.tsv line {number}"
    require(len(line) <= LONGEST_LINE, f"{where} is too long")
    cells = line.split("\t")
    require(len(cells) == len(COLUMNS), f"{where} has {len(cells)} columns, not {len(COLUMNS)}")
    cell = dict(zip(COLUMNS, cells, strict=True))
    require(TIME.fullmatch(cell["time"]) is not None, f"{where}: {quote(cell['time'])} is no time")
    for name in ("label", "predict", "binding"):
        value = _integer(cell[name], where, name)
        require(value < classes, f"{where}: {name} {value} is outside the {classes} classes")
    require(cell["correct"] in ("0", "1"), f"{where}: correct is {quote(cell['correct'])}")
    row = Row(
        index=_integer(cell["idx"], where, "idx"),
        label=int(cell["label"]),
        predict=int(cell["predict"]),
        radius=_number(cell["radius"], where, "radius"),
        correct=cell["correct"] == "1",
        binding=int(cell["binding"]),
        margin=_number(cell["margin"], where, "margin"),
        lipschitz=_number(cell["lipschitz"], where, "lipschitz"),
        delta=_number(cell["delta"], where, "delta"),
        radius_float=_number(cell["radius_float"], where, "radius_float"),
    )
    for name, radius in (("radius", row.radius), ("radius_float", row.radius_float)):
        require(radius >= 0, f"{where}: {name} {radius!r} is not a radius")
    return row


def _integer(text: str, where: str, name: str) -> int:
    require(INTEGER.fullmatch(text) is not None, f"{where}: {name} {quote(text)} is not an integer")
    return int(text)


def _number(text: str, where: str, name: str) -> float:
    good = NUMBER.fullmatch(text) is not None
    try:
        value = float(text) if good else math.nan
    except ValueError:  # two points, say
        good, value = False, math.nan
    require(
        good and f"{value:.17g}" == text,
        f"{where}: {name} {quote(text)} is not a number with 17 significant digits",
    )
    return value
