"""Building by name: near misses for names and options."""

import pytest

from pipeline.registry import Registry


def vase(height: int, colour: str = "red", wide: bool = False) -> str:
    return f"{height} {colour} {wide}"


@pytest.fixture
def vases():
    registry = Registry("vase", given=("height",))
    registry.add("plain", vase)
    registry.add("bare", lambda: "bare")
    return registry


def test_builds_with_options(vases):
    assert vases.build("plain", 3, colour="blue") == "3 blue False"
    assert vases.names() == ["bare", "plain"]
    assert vases.options("plain") == ["colour", "wide"]


def test_names_the_near_miss(vases):
    with pytest.raises(ValueError, match=r"there is no vase 'plian'; did you mean 'plain'\?"):
        vases.build("plian", 3)
    with pytest.raises(ValueError, match="no vase 'urn'; known: bare, plain"):
        vases.build("urn")
    with pytest.raises(ValueError, match=r"'plain' has no option 'color'; did you mean 'colour'\?"):
        vases.build("plain", 3, color="blue")
    with pytest.raises(ValueError, match="'bare' has no option 'x'; it has none"):
        vases.build("bare", x=1)


def test_a_required_option_that_is_missing(vases):
    vases.add("tall", lambda height, *, glaze: glaze)
    with pytest.raises(ValueError, match=r"key 'vase\.glaze' is missing: vase 'tall' has"):
        vases.build("tall", 3)
    assert vases.build("tall", 3, glaze="blue") == "blue"


def test_what_the_caller_supplies_is_no_option(vases):
    with pytest.raises(ValueError, match="has no option 'height'"):
        vases.build("plain", 3, height=4)
