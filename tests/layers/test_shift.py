"""The one rounding of a shift, its constant read back, and what flatten keeps."""

from fractions import Fraction

import pytest
import torch

from pipeline.layers.flatten import Flatten
from pipeline.layers.shift import ExportedShift


def test_rounding_covers_the_norm_of_the_constant():
    for center, shape in ((0.5, (3, 224, 224)), (0.1, (1, 8, 8)), (-0.3, (3, 5, 5)), (0.0, (1,))):
        rounding = ExportedShift("shift", shape, center).rounding()
        size = torch.tensor(shape).prod().item()
        assert Fraction(rounding.bias_norm) ** 2 >= Fraction(center) ** 2 * size
        assert rounding.bias_norm == pytest.approx(abs(center) * size**0.5)
        assert (rounding.fan_in, rounding.abs_norm) == (1, 1.0)


def test_a_shift_is_read_back_or_refused():
    shift = ExportedShift("shift", (1, 2, 2), 0.1)
    assert ExportedShift.from_record("shift", (1, 2, 2), shift.attributes(), {}) == shift
    for wrong in ({}, {"center": "0.5"}, {"center": float("nan")}):
        with pytest.raises(ValueError, match="'shift': center"):
            ExportedShift.from_record("shift", (1, 2, 2), wrong, {})


def test_flatten_puts_channels_outermost():
    x = torch.arange(24.0).view(1, 2, 3, 4)
    (exported,) = Flatten().export("flatten", (2, 3, 4))
    assert exported.forward(x).tolist() == [list(range(24))]
