"""Rows one by one: what may stand in images.tsv, and what follows from a row alone."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.verify.head import HeadDistances
from pipeline.verify.refusal import Refusal
from pipeline.verify.rows import HEADER, Row, check_row, read_rows
from pipeline.verify.totals import exceeds

HEAD = "\t".join(HEADER.split())
CELLS = {
    "idx": "0", "label": "1", "predict": "1", "radius": "0.25", "correct": "1", "time": "0.001",
    "binding": "2", "margin": "0.5", "lipschitz": "2", "delta": "0",
    "radius_float": "0.125",
}  # fmt: skip
DISTANCES = HeadDistances(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))


def table(**cells: str) -> bytes:
    return f"{HEAD}\n{chr(9).join({**CELLS, **cells}.values())}\n".encode()


def down(x: float) -> float:
    return math.nextafter(x, -math.inf)


def row(**values: float | bool) -> Row:
    """A true row; Λ is 1, classes 1 and 2 are √2 apart, classes 1 and 3 have equal head rows."""
    constant = 1.5
    true = Row(0, 1, 1, down(down(0.5 - 1e-3) / constant), True, 2, 0.5, constant, 1e-3, 0.0)
    return replace(true, **values)  # type: ignore[arg-type]


def test_a_table_of_one_row() -> None:
    (only,) = read_rows(table(), 1, 3)
    assert (only.label, only.radius, only.correct, only.binding) == (1, 0.25, True, 2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "does not end with a line end"),
        (table()[:-1], "does not end with a line end"),
        (table() + b"\xff\n", "not ASCII"),
        (table().replace(b"idx", b"id"), "does not begin with its header line"),
        (table(time="0:00:01"), "'0:00:01' is no time"),
        (table(time="nan"), "'nan' is no time"),
        (table(correct="2"), "correct is '2'"),
        (table(correct="True"), "correct is 'True'"),
        (table(radius="-1"), "radius -1.0 is not a radius"),
        (table(radius="nan"), "radius nan is not a radius"),
        (table(margin="0.50"), "margin '0.50' is not a number"),
        (table(margin="5e-1"), "margin '5e-1' is not a number"),
        (table(margin="+0.5"), "is not a number"),
        (table(margin="infinity"), "is not a number"),
        (table(margin=" 0.5"), "is not a number"),
        (table(margin="0.1000000000000000055511151231257827"), "is not a number"),
        (table(idx="-0"), "idx '-0' is not an integer"),
        (table(label="3"), "label 3 is outside the 3 classes"),
        (table(delta="0" * 400), "is too long"),
        (table().replace(b"\n", b"\r\n"), "does not begin with its header line"),
    ],
)
def test_tables_that_are_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        read_rows(content, 1, 3)


def test_what_percent_17g_writes_is_read() -> None:
    random = np.random.default_rng(0)
    numbers = random.standard_normal(200) * 10.0 ** random.integers(-300, 300, 200)
    for number in [*np.abs(numbers), 0.0, 5e-324, 1.7976931348623157e308, 1e16, 1e17, 0.1]:
        (only,) = read_rows(table(radius=f"{number:.17g}"), 1, 3)
        assert only.radius == number


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"radius": 0.0, "margin": 1e-3},  # exactly as large as delta
        {"radius": 0.0, "margin": 1e-4},
        {"radius": 0.0, "delta": math.inf},
        {"radius": 0.0, "delta": math.nan},
        {"radius": 0.0, "correct": False, "label": 0},
        {"radius": 0.0, "correct": False, "margin": 0.0},  # a tie of the label's own class
        {"radius": 0.0, "correct": False, "margin": math.nan},
        {"radius": 0.0, "binding": 3, "lipschitz": 0.0, "margin": 1e-4},
    ],
)
def test_rows_that_are_true(values: dict[str, float | bool]) -> None:
    check_row(row(**values), DISTANCES, 1.0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"binding": 1}, "names its predicted class as binding"),
        ({"lipschitz": 1.4142}, "below the Lipschitz bound times the distance"),
        ({"lipschitz": math.inf, "radius": 0.0}, "constant that is not finite"),
        ({"lipschitz": math.nan, "radius": 0.0}, "constant that is not finite"),
        ({"lipschitz": -1.5}, "below the Lipschitz bound times the distance"),
        ({"margin": math.inf, "radius": math.inf}, "its margin is infinite"),
        ({"margin": math.nan}, "no class is strictly first"),
        ({"margin": -0.5, "radius": 0.0}, "no class is strictly first"),
        ({"delta": -1e-3}, "which is negative"),
        ({"delta": math.nan}, "though its delta is not finite"),
        ({"delta": math.inf}, "though its delta is not finite"),
        ({"margin": 1e-3}, "its margin and delta give 0.0"),
        ({"binding": 3, "lipschitz": 0.0}, "its margin and delta give inf"),
        ({"binding": 3, "lipschitz": 0.0, "radius": math.inf}, "though some head row differs"),
        ({"correct": False}, "is not correct but has the radius"),
        ({"correct": False, "radius": 0.0}, "though its label is strictly first"),
        ({"label": 0}, "predicts another class"),
    ],
)
def test_rows_that_are_refused(values: dict[str, float | bool], sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        check_row(row(**values), DISTANCES, 1.0)


def test_constant_is_compared_exactly() -> None:
    """√2 rounded up is a valid constant, rounded down it is not."""
    above = math.nextafter(math.sqrt(2), math.inf)
    below = math.nextafter(math.sqrt(2), 0)
    candidates = [x for x in (below, math.sqrt(2), above) if Fraction(x) ** 2 >= 2]
    least = min(candidates)
    check_row(row(lipschitz=least, radius=down(down(0.5 - 1e-3) / least)), DISTANCES, 1.0)
    too_low = math.nextafter(least, 0)
    with pytest.raises(Refusal, match="below the Lipschitz bound"):
        check_row(row(lipschitz=too_low, radius=0.3), DISTANCES, 1.0)


def test_rounding_that_exceeds_the_quotient_is_refused() -> None:
    """Plain division rounds up about every second time; downward rounding never fails."""
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        margin, delta, constant = random.random(3) * [1, 1e-10, 3] + [0.1, 0, 1.5]
        downward = down(down(margin - delta) / constant)
        values = {"margin": margin, "delta": delta, "lipschitz": constant}
        check_row(row(**values, radius=downward), DISTANCES, 1.0)
        plain = (margin - delta) / constant
        if Fraction(plain) > (Fraction(margin) - Fraction(delta)) / Fraction(constant):
            refused += 1
            with pytest.raises(Refusal, match="does not follow"):
                check_row(row(**values, radius=plain), DISTANCES, 1.0)
    assert refused > 50


@pytest.mark.parametrize("text", ["36/255", "72/255", "108/255"])
def test_the_float_below_the_fraction_does_not_exceed_it(text: str) -> None:
    exact = Fraction(text)
    nearest = float(exact)
    assert Fraction(nearest) < exact
    assert not exceeds(nearest, exact)
    assert exceeds(math.nextafter(nearest, 1), exact)
    assert exceeds(math.inf, exact)
    assert not exceeds(0.25, Fraction("0.25"))
