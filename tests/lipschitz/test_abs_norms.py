"""Norms of absolute values against explicit matrices."""

import math

import numpy as np
import pytest

from pipeline.lipschitz.abs_norms import bias_norm_upper, conv_abs_norm_upper, dense_abs_norm_upper
from tests.lipschitz.explicit import KINDS, convolution_matrix, kernel_of

GEOMETRIES = [
    ((3, 2, 3, 3), 7, 1, 1),
    ((3, 2, 5, 5), 8, 2, 2),
    ((2, 1, 7, 7), 16, 4, 3),
    ((4, 3, 4, 4), 8, 4, 0),
    ((2, 2, 1, 1), 5, 2, 3),
    ((2, 2, 3, 2), 4, 1, 3),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "n", "s", "p"), GEOMETRIES)
def test_not_below_the_norm_of_the_absolute_operator(shape, n, s, p, kind):
    weight = kernel_of(kind, shape, 1)
    truth = np.linalg.norm(np.abs(convolution_matrix(weight, (n, n), (s, s), (p, p))), 2)
    assert conv_abs_norm_upper(weight, s, p) >= truth
    matrix = weight.reshape(shape[0], -1)
    assert dense_abs_norm_upper(matrix) >= np.linalg.norm(np.abs(matrix), 2) * (1 - 1e-14)


def test_known_values():
    assert 9 <= conv_abs_norm_upper(-np.ones((1, 1, 3, 3)), 1, 1) <= 9 * (1 + 1e-13)
    assert 1 <= dense_abs_norm_upper(-np.eye(4)) <= 1 + 1e-13
    assert (
        2 * math.sqrt(3) <= bias_norm_upper([1.0, -1.0, 1.0], 4) <= 2 * math.sqrt(3) * (1 + 1e-13)
    )
    assert bias_norm_upper(np.zeros(3, np.float32), 4) < 1e-300


def test_nothing_non_finite_becomes_a_number():
    for bad in (np.nan, np.inf):
        assert not dense_abs_norm_upper([[1.0, bad]]) < math.inf
        assert not conv_abs_norm_upper(np.full((1, 1, 2, 2), bad)) < math.inf
        assert not bias_norm_upper([bad, 1.0], 2) < math.inf
