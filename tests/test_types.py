from fractions import Fraction

import pytest
import torch

from pipeline.types import Batch, Epsilon


@pytest.mark.parametrize(
    ("written", "exact"),
    [("36/255", Fraction(36, 255)), ("0.25", Fraction(1, 4)), (0.1, Fraction(1, 10)), (1, 1)],
)
def test_epsilon_is_exactly_what_was_written(written: str | float, exact: Fraction) -> None:
    epsilon = Epsilon.parse(written)
    assert epsilon.exact == exact
    assert epsilon.text == str(written)


def test_the_papers_radii_lie_above_their_floats() -> None:
    for grey_levels in (36, 72, 108):
        epsilon = Epsilon.parse(f"{grey_levels}/255")
        assert Fraction(float(epsilon)) < epsilon.exact


@pytest.mark.parametrize(
    "bad", ["", "36/0", "nan", "inf", "-1", "0", "thirty", "+0.25", "1_0/255", "1e100", "0x1"]
)
def test_nonsense_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        Epsilon.parse(bad)


def batch_of(count: int) -> Batch:
    images = torch.arange(count * 4, dtype=torch.uint8).reshape(count, 1, 2, 2)
    ids = torch.arange(count)
    return Batch(images, ids % 3, ids, ids % 2 == 0)


def test_to_makes_the_nearest_float_of_each_pixel() -> None:
    batch = batch_of(5).to(torch.device("cpu"))
    assert batch.images.dtype == torch.float32
    assert torch.equal(batch.images.flatten(), torch.arange(20, dtype=torch.float32) / 255)
    assert torch.equal(batch.to(torch.device("cpu")).images, batch.images)


def test_split_keeps_order_and_all_fields() -> None:
    whole = batch_of(6)
    parts = whole.split(3)
    assert [len(part) for part in parts] == [2, 2, 2]
    for index, field in enumerate(whole.fields()):
        assert torch.equal(torch.cat([part.fields()[index] for part in parts]), field)
