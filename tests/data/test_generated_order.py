"""The order of generated images: passes of their own, on any number of processes, from any step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.order import GENERATED_PERMUTATION, KEY, GeneratedOrder, Order, permutation

PROVED = settings(deadline=None, max_examples=60, derandomize=True)


def whole(order: GeneratedOrder, epochs: int) -> np.ndarray:
    """Everything that some epochs of the run read, one entry after the other."""
    return np.concatenate([order.epoch(epoch) for epoch in range(epochs)]).reshape(-1)


def test_the_order_is_pinned() -> None:
    """A run must resume in the same order for ever; these numbers may never change."""
    order = GeneratedOrder(size=7, batch_size=4, seed=5, steps_per_epoch=3)
    assert order.epoch(0)["sample"].tolist() == [[0, 1, 5, 4], [6, 3, 2, 1], [4, 0, 5, 6]]
    assert order.epoch(0)["key"][0, 0] == 16072677455457095341


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 7), st.integers(0, 2**40))
@PROVED
def test_every_image_is_used_once_in_every_pass(
    size: int, batch_size: int, steps: int, seed: int
) -> None:
    order = GeneratedOrder(size, batch_size, seed, steps)
    read = whole(order, 4)
    assert len(read) == 4 * steps * batch_size
    for number, start in enumerate(range(0, len(read), size)):
        ids = read["sample"][start : start + size].tolist()
        assert ids == permutation(seed, number, size, GENERATED_PERMUTATION)[: len(ids)].tolist()
        assert len(set(ids)) == len(ids) <= size
    keys = set(zip(read["sample"].tolist(), read["key"].tolist(), strict=True))
    assert len(keys) == len(read), "no image is augmented twice in the same way"


@given(
    st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(0, 6)
)
@PROVED
def test_any_world_from_any_step_reads_the_same(
    size: int, groups: int, world: int, steps: int, start: int
) -> None:
    order = GeneratedOrder(size, groups * world, 3, steps)
    start = min(start, steps)
    parts = [order.epoch(2, start, rank, world) for rank in range(world)]
    assert all(part.shape == (steps - start, groups) and part.dtype == KEY for part in parts)
    assert np.array_equal(np.concatenate(parts, axis=1), order.epoch(2)[start:])


def test_it_does_not_follow_the_real_images() -> None:
    real, generated = Order(500, 50, 3), GeneratedOrder(500, 50, 3, 10)
    one, other = real.epoch(0).reshape(-1), generated.epoch(0).reshape(-1)
    assert sorted(one["sample"]) == sorted(other["sample"])
    assert (one["sample"] == other["sample"]).mean() < 0.02
    assert not set(one["key"].tolist()) & set(other["key"].tolist())
    # A run of other real images reads the same generated ones, in other epochs.
    longer = GeneratedOrder(500, 50, 3, 20).epoch(0)
    assert np.array_equal(longer, whole(generated, 2).reshape(20, 50))


@pytest.mark.parametrize("start", [-1, 4])
def test_a_step_that_is_not_in_the_epoch(start: int) -> None:
    with pytest.raises(AssertionError, match=f"step {start} is not in the epoch"):
        GeneratedOrder(7, 4, 5, 3).epoch(0, start)
