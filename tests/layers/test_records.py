"""What is stored of a layer: numbers that are numbers, and no field forgotten."""

from dataclasses import dataclass

import pytest

from pipeline.layers.minmax import ExportedMinMax
from pipeline.layers.records import read_float, read_int


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), 10**400])
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="layer 'scale': factor is"):
        read_float("scale", {"factor": value}, "factor")


@pytest.mark.parametrize("value", [True, None, 1.0, 0])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="layer 'pool': size is"):
        read_int("pool", {"size": value}, "size", least=1)


def test_a_field_of_which_nobody_said_how_it_is_stored() -> None:
    @dataclass(frozen=True)
    class Forgetful(ExportedMinMax):
        slope: float = 1.0

    with pytest.raises(AssertionError, match=r"Forgetful\.slope is not stored"):
        Forgetful("act", (2, 1, 1)).attributes()
