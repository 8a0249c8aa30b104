"""images.tsv reads back to the same float64s."""

import math

import numpy as np
import pytest

from pipeline.certify.verdicts import COLUMNS, Verdicts, concatenate, read_rows, write_rows
from pipeline.types import Epsilon


def some_verdicts(count: int = 50) -> Verdicts:
    rng = np.random.default_rng(0)
    correct = rng.random(count) < 0.8
    return Verdicts(
        label=rng.integers(0, 5, count),
        predict=rng.integers(0, 5, count),
        radius=np.where(correct, rng.random(count) * 10.0 ** rng.integers(-9, 3, count), 0.0),
        correct=correct,
        binding=rng.integers(0, 5, count),
        margin=rng.standard_normal(count),
        lipschitz=rng.random(count),
        delta=rng.random(count) * 1e-12,
        radius_float=rng.random(count),
    )


def test_rows_read_back_bit_for_bit() -> None:
    verdicts = some_verdicts()
    verdicts.radius[0], verdicts.radius[1], verdicts.margin[2] = math.inf, 5e-324, math.nan
    again = read_rows(write_rows(verdicts, first=256, seconds=0.25))
    for name in Verdicts.__dataclass_fields__:
        before, after = getattr(verdicts, name), getattr(again, name)
        assert before.tobytes() == after.tobytes() and before.dtype == after.dtype, name


def test_the_columns_start_as_those_of_cohen() -> None:
    assert COLUMNS[:6] == ("idx", "label", "predict", "radius", "correct", "time")
    rows = write_rows(some_verdicts(3), first=256, seconds=0.25)
    assert [row.split("\t")[0] for row in rows] == ["256", "257", "258"]
    assert rows[0].split("\t")[4:6] == [str(int(some_verdicts(3).correct[0])), "0.250000"]


def test_a_row_with_a_cell_missing_is_refused() -> None:
    rows = write_rows(some_verdicts(3), first=0, seconds=0.0)
    with pytest.raises(ValueError, match="11 columns"):
        read_rows([rows[0], rows[1].rpartition("\t")[0]])


def test_totals() -> None:
    verdicts = some_verdicts(200)
    epsilon = Epsilon.parse("36/255")
    assert verdicts.clean_accuracy == np.mean(verdicts.correct)
    assert verdicts.vra(epsilon) == np.mean([r > 36 / 255 for r in verdicts.radius])
    twice = concatenate([verdicts, verdicts])
    assert len(twice) == 400 and twice.vra(epsilon) == verdicts.vra(epsilon)
