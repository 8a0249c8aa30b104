"""Checks of options: what each refuses, and that networks and objectives use them."""

import math
from typing import Any

import pytest

from pipeline.models import build_model
from pipeline.objectives import build_objective
from pipeline.options import require_choice, require_count, require_flag, require_number


@pytest.mark.parametrize("value", [True, 1.0, "3", None, 2, [4], math.nan])
def test_counts(value: Any) -> None:
    with pytest.raises(ValueError, match=r"a\.b is .*, expected a whole number of at least 3"):
        require_count("a.b", value, least=3)
    require_count("a.b", 3, least=3)


@pytest.mark.parametrize("value", [True, math.nan, math.inf, -math.inf, "1", None, 0, 2.5, [1]])
def test_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"a\.b is .*, expected a finite number above 0 and of at"):
        require_number("a.b", value, above=0, most=2)
    require_number("a.b", 2, above=0, most=2)
    require_number("a.b", -1e300)


def test_choices_and_flags() -> None:
    for value in ("c", ["a"], None):
        with pytest.raises(ValueError, match=r"a\.b is .*, expected one of a, b"):
            require_choice("a.b", value, ("a", "b"))
    for word in ("no", 0, None):
        with pytest.raises(ValueError, match=r"a\.b is .*, expected true or false"):
            require_flag("a.b", word)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "x"])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("emma", "floor"),
        ("multi_margin", "margin"),
        ("gloro_trades", "weight"),
        ("crm", "weight"),
        ("crm", "temperature"),
        ("crm", "threshold"),
        ("crt", "gamma"),
        ("trades", "beta"),
        ("pgd", "steps"),
        ("gaussian_noise", "sigma"),
    ],
)
def test_no_objective_takes_what_is_no_number(name: str, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"objective.{option} is "):
        build_objective(name, **{option: value})


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("cnn", {"activation": ["relu"]}, r"no activation \['relu'\]"),
        ("slope_resnet", {"activation": {}}, "no activation {}"),
        ("cnn", {"plan": ["4c3f"]}, r"model.plan is \['4c3f'\], expected one of 4c3f, 6c2f, 8c2f"),
        ("mlp", {"hidden": [8, True]}, "model.hidden is True"),
        ("mlp", {"curvature": "no"}, "model.curvature is 'no', expected true or false"),
        ("mlp", {"lipschitz": ["liplt"]}, "model.lipschitz is"),
        ("slope_resnet", {"blocks": 0}, "model.blocks is 0, expected a whole number"),
        ("cpl", {"skew": "no"}, "model.skew is 'no', expected true or false"),
        ("cpl", {"scale": 1}, "model.scale is 1, expected true or false"),
        ("cpl", {"layer": ["sll"]}, "model.layer is"),
        ("liresnet", {"block": ["aol"]}, "model.block is"),
    ],
)
def test_no_network_takes_a_malformed_value(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_model(name, 10, 32, **options)
