"""Images that stand for a whole set: evenly spread, at most as many as there are."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.loader import open_block_loader
from pipeline.data.sources import open_source
from pipeline.data.spread import images_at, spread


@given(count=st.integers(1, 300), total=st.integers(1, 300))
def test_gaps_differ_by_one_at_most(count: int, total: int) -> None:
    indices = spread(count, total)
    assert len(indices) == min(count, total) and indices[0] == 0
    assert len(indices) == 1 or indices[-1] == total - 1
    gaps = {late - early for early, late in pairwise(indices)} or {1}
    assert max(gaps) - min(gaps) <= 1 and min(gaps) >= 1


def test_images_are_taken_from_all_over_a_set() -> None:
    assert spread(3, 101) == [0, 50, 100]
    assert spread(7, 3) == [0, 1, 2] and spread(1, 9) == [0]


def test_every_class_of_a_sorted_set_is_there() -> None:
    """ImageNet's validation images in folders: the first thousand are of twenty classes."""
    assert {index // 50 for index in spread(1000, 50_000)} == set(range(1000))


@pytest.mark.parametrize("count", [1, 7, 360, 1000])
def test_images_are_those_of_the_source(count: int) -> None:
    loader, source = open_block_loader("digits", "val", 8), open_source("digits", "val")
    indices = spread(count, loader.info.num_samples)
    images, labels = images_at(loader, indices)
    loader.close()
    assert len(images) == len(labels) == min(count, 360)
    for index, image, label in zip(indices, images.numpy(), labels.tolist(), strict=True):
        assert label == source.labels[index]
        assert (image.transpose(1, 2, 0) == source.image(index)).all()
