"""The theorem's geometry, exactly: the torus' corner is the convolution, tap for tap."""

import itertools

import numpy as np
import pytest

from pipeline.lipschitz.polyphase import Axis, axes_of, int_pair, polyphase

GEOMETRIES = [
    (n, k, s, p)
    for n, k, s, p in itertools.product(range(1, 12), range(1, 8), range(1, 5), range(5))
    if n + 2 * p >= k
]


def toeplitz(n, k, s, p, m):
    """[m, n] integers: entry (i, x) is the number (from 1) of the tap that leads from x to i."""
    matrix = np.zeros((m, n), dtype=int)
    for i in range(m):
        for t in range(k):
            if 0 <= s * i + t - p < n:
                matrix[i, s * i + t - p] = t + 1
    return matrix


def corner(axis, n, size):
    """[m, n] integers: the corner of the circulant of `size` made of numbered polyphase taps."""
    labels = np.arange(1.0, axis.kernel + 1).reshape(1, 1, axis.kernel, 1)
    taps = polyphase(labels, (axis, Axis(1, 1, 0)))[:, 0, 0]  # [T, phases]
    present = np.unique((np.arange(axis.kernel) - axis.padding) % axis.stride)
    matrix = np.zeros((axis.outputs(n), n), dtype=int)
    for i, x in itertools.product(range(axis.outputs(n)), range(n)):
        step, phase = divmod(x, axis.stride)
        if phase not in present:
            continue
        column = np.flatnonzero(present == phase)[0]
        for number in range(axis.taps):
            if (number - axis.before - (step - i)) % size == 0:
                matrix[i, x] += int(taps[number, column]) * 1000 ** (matrix[i, x] > 0)
    return matrix


def test_the_corner_is_the_convolution():
    assert len(GEOMETRIES) > 1000
    for n, k, s, p in GEOMETRIES:
        axis = Axis(k, s, p)
        if s == 1 and p > k - 1:
            continue  # next test
        truth = toeplitz(n, k, s, p, axis.outputs(n))
        for size in (axis.torus(n), axis.torus(n) + 1):
            assert np.array_equal(corner(axis, n, size), truth), (n, k, s, p, size)


def test_rows_that_see_padding_only_may_be_dropped():
    for n, k, p in itertools.product(range(1, 8), range(1, 5), range(1, 6)):
        if p <= k - 1:
            continue
        wide, narrow = Axis(k, 1, p), Axis(k, 1, k - 1)
        rows = toeplitz(n, k, 1, p, wide.outputs(n))
        dropped = p - (k - 1)
        kept = rows[dropped : len(rows) - dropped]
        assert not rows[:dropped].any()
        assert not rows[len(rows) - dropped :].any()
        assert np.array_equal(kept, toeplitz(n, k, 1, k - 1, narrow.outputs(n)))
        assert wide.torus(n) == narrow.torus(n) == n + k - 1


def test_a_smaller_torus_is_wrong_at_stride_1():
    """circ(n) of a padded convolution, among others: taps wrap around into the corner."""
    tried = 0
    for n, k, s, p in GEOMETRIES:
        axis = Axis(k, s, p)
        if s == 1 and p < k <= n and k > 1:
            size = axis.torus(n) - 1
            truth = toeplitz(n, k, s, p, axis.outputs(n))
            fits = size >= max(truth.shape) and np.array_equal(corner(axis, n, size), truth)
            assert not fits, (n, k, s, p)
            tried += 1
    assert tried > 50


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "torus", "taps"),
    [
        (16, 3, 1, 1, 17, 3),  # backbone
        (32, 5, 2, 2, 17, 3),  # stem, CIFAR
        (64, 7, 4, 3, 17, 2),  # stem, Tiny ImageNet
        (224, 14, 14, 0, 16, 1),  # stem, ImageNet
        (16, 4, 4, 0, 4, 1),  # neck
        (16, 3, 1, 0, 16, 3),  # unpadded: circ(n) is right here
        (33, 3, 2, 1, 18, 2),
        (5, 1, 1, 1, 5, 1),
    ],
)
def test_known_sizes(n, k, s, p, torus, taps):
    assert (Axis(k, s, p).torus(n), Axis(k, s, p).taps) == (torus, taps)


def test_stride_equal_kernel_is_the_reshaped_kernel():
    weight = np.random.default_rng(0).standard_normal((5, 3, 4, 4))
    taps = polyphase(weight, axes_of(weight, 4, 0))
    assert taps.shape == (1, 1, 5, 48)
    assert np.array_equal(taps.reshape(5, 48), weight.reshape(5, 48))


def test_phases_without_taps_are_left_out():
    weight = np.ones((2, 3, 1, 1))
    assert polyphase(weight, axes_of(weight, 4, 0)).shape == (1, 1, 2, 3)


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", None, (1, 2, 3), (1,), (2, 0)])
def test_a_bad_stride_is_named(value):
    with pytest.raises(ValueError, match="stride is"):
        int_pair(value, "stride", 1)
    assert int_pair((np.int64(2), 3), "stride", 1) == (2, 3)
