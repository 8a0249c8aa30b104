"""--grid: what it takes, what it makes of it, and how runs are called."""

import pytest

from pipeline.sweep.grid import Point, parse_axis, product, run_name, short_names


@pytest.mark.parametrize(
    ("word", "keys", "values"),
    [
        ("model.width=8,16", ["model.width"], [["8"], ["16"]]),
        ("model.width=8", ["model.width"], [["8"]]),
        ("data.crop-padding=0, 4", ["data.crop_padding"], [["0"], ["4"]]),
        ("data.train=folder:/a,folder:/b=c", ["data.train"], [["folder:/a"], ["folder:/b=c"]]),
        ("a.b, c=1:2,3:4", ["a.b", "c"], [["1", "2"], ["3", "4"]]),
        ("a,b='x:y':2", ["a", "b"], [["'x:y'", "2"]]),
        ("a=[1,2],[3]", ["a"], [["[1,2]"], ["[3]"]]),
        ("a={x: 1, y: [2, 3]},null", ["a"], [["{x: 1, y: [2, 3]}"], ["null"]]),
        ('a="1,2",-3', ["a"], [['"1,2"'], ["-3"]]),
    ],
)
def test_what_is_read(word: str, keys: list[str], values: list[list[str]]) -> None:
    axis = parse_axis(word)
    assert list(axis.keys) == keys
    assert [list(value) for value in axis.values] == values


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("model.width", "expected KEY=VALUE,VALUE"),
        ("=3", "expected KEY=VALUE,VALUE"),
        ("a:b=1:2", "'a:b' is not a key"),
        ("a,=1:2", "'' is not a key"),
        ("a b=1", "'a b' is not a key"),
        ("a,b=1,2:3", "'1' has 1 values for 2 keys"),
        ("a,b=1:2:3", "'1:2:3' has 3 values for 2 keys"),
        ("a=1,,2", "a value is empty"),
        ("a=[1,2", "not closed"),
        ("a='1,2", "not closed"),
    ],
)
def test_what_is_refused(word: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="--grid") as error:
        parse_axis(word)
    assert sentence in str(error.value)


def test_the_product_has_every_combination_with_the_last_axis_fastest() -> None:
    points = product([parse_axis("a=1,2"), parse_axis("b,c=3:4,5:6")])
    assert [dict(point.settings) for point in points] == [
        {"a": "1", "b": "3", "c": "4"},
        {"a": "1", "b": "5", "c": "6"},
        {"a": "2", "b": "3", "c": "4"},
        {"a": "2", "b": "5", "c": "6"},
    ]
    assert points[1].overrides == ["--a=1", "--b=5", "--c=6"]
    assert product([]) == [Point(())]


def test_a_key_cannot_be_swept_twice() -> None:
    with pytest.raises(ValueError, match="a is given 2 times"):
        product([parse_axis("a=1"), parse_axis("b,a=1:2")])


def test_names_are_short_where_they_are_clear_and_safe_everywhere() -> None:
    assert short_names(["model.width", "a.lr", "b.lr"]) == {
        "model.width": "width", "a.lr": "a.lr", "b.lr": "b.lr",
    }  # fmt: skip
    point = Point((("epsilon.target", "36/255"), ("data.train", "folder:/x y/ü")))
    assert run_name(point, 3) == "target=36-255_train=folder-x-y-_seed3"
    assert run_name(Point(()), 0) == "seed0"
    assert run_name(Point((("a.b", "../.."),)), 0) == "b=..-.._seed0"
