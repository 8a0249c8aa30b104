import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.order import KEY, Order, mix, permutation, sample_hashes, share

U64 = 2**64


def splitmix_finaliser(x: int) -> int:
    """The published constants, in Python's integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % U64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % U64
    return x ^ (x >> 31)


def test_mix_is_splitmix64() -> None:
    values = [0, 1, 2**63, U64 - 1, 0x9E3779B97F4A7C15]
    expected = [splitmix_finaliser(value) for value in values]
    assert mix(np.array(values, np.uint64)).tolist() == expected
    # The first number of splitmix64 with seed 0, as every published table has it.
    assert splitmix_finaliser(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_the_order_is_pinned() -> None:
    """A run must resume in the same order for ever; these numbers may never change."""
    assert permutation(0, 0, 10).tolist() == [3, 1, 9, 6, 2, 4, 7, 8, 0, 5]
    assert permutation(7, 3, 10).tolist() == [8, 7, 9, 4, 6, 5, 0, 2, 3, 1]
    assert Order(10, 4, 7).epoch(3)["key"][0, 0] == 5816261658235990172


@given(st.integers(0, 2**40), st.integers(0, 10_000), st.integers(1, 300))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_every_epoch_is_a_permutation(seed: int, epoch: int, size: int) -> None:
    assert sorted(permutation(seed, epoch, size)) == list(range(size))


def test_epochs_seeds_and_purposes_are_unrelated() -> None:
    orders = [permutation(seed, epoch, 500) for seed in range(3) for epoch in range(3)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).mean() < 0.02
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.2
    hashes = sample_hashes(1, 5, 6, np.arange(1000))
    assert not set(hashes.tolist()) & set(sample_hashes(2, 5, 6, np.arange(1000)).tolist())
    assert len(set(hashes.tolist())) == 1000


@given(st.integers(0, 1000), st.integers(1, 17))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_shares_cover_everything_once(n: int, world: int) -> None:
    parts = [share(n, rank, world) for rank in range(world)]
    assert parts[0][0] == 0 and parts[-1][1] == n
    assert all(one[1] == other[0] for one, other in itertools.pairwise(parts))
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_any_world_sees_the_same_global_batches(world: int) -> None:
    order = Order(size=100, batch_size=12, seed=3)
    alone = order.epoch(5)
    assert alone.shape == (8, 12) and alone.dtype == KEY
    together = [order.epoch(5, 0, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate(together, axis=1), alone)


def test_an_epoch_entered_in_the_middle_is_the_rest_of_it() -> None:
    order = Order(size=103, batch_size=10, seed=3)
    whole = order.epoch(2)
    assert order.steps_per_epoch == 10
    for step in range(11):
        assert np.array_equal(order.epoch(2, step), whole[step:])


def test_no_sample_is_seen_twice_and_the_tail_changes() -> None:
    order = Order(size=25, batch_size=10, seed=0)
    left_out = []
    for epoch in range(4):
        seen = order.epoch(epoch)["sample"].ravel().tolist()
        assert len(set(seen)) == len(seen) == 20
        left_out.append(frozenset(range(25)) - set(seen))
    assert len(set(left_out)) == 4


def test_a_key_belongs_to_the_sample_and_the_epoch_not_to_the_batch() -> None:
    def keys(order: Order, epoch: int) -> dict[int, int]:
        return {int(s): int(k) for s, k in order.epoch(epoch).ravel().tolist()}

    assert keys(Order(60, 6, 1), 4) == keys(Order(60, 20, 1), 4)
    assert not set(keys(Order(60, 6, 1), 4).values()) & set(keys(Order(60, 6, 1), 5).values())
    assert not set(keys(Order(60, 6, 1), 4).values()) & set(keys(Order(60, 6, 2), 4).values())
