"""The norm of a circular convolution against the singular values of its explicit matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.lipschitz.circular import circular_norm_bound


def circular_matrix(kernel: np.ndarray) -> np.ndarray:
    """[O, I, H, W] -> [O·H·W, I·H·W], entry by entry."""
    outputs, inputs, high, wide = kernel.shape
    matrix = np.zeros((outputs, high, wide, inputs, high, wide))
    for i in range(high):
        for j in range(wide):
            for s in range(high):
                for t in range(wide):
                    matrix[:, i, j, :, (i + s) % high, (j + t) % wide] += kernel[:, :, s, t]
    return matrix.reshape(outputs * high * wide, -1)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    outputs=st.integers(1, 4),
    inputs=st.integers(1, 4),
    high=st.integers(1, 5),
    wide=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_never_below_and_hardly_above(
    outputs: int, inputs: int, high: int, wide: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    kernel = random.standard_normal((outputs, inputs, high, wide)).astype(np.float32)
    norm = np.linalg.svd(circular_matrix(kernel.astype(np.float64)), compute_uv=False)[0]
    bound = circular_norm_bound(kernel).value
    assert norm * (1 - 1e-13) <= bound <= norm * (1 + 3e-6)


def test_a_shift_is_an_isometry() -> None:
    kernel = np.zeros((2, 2, 4, 4), np.float32)
    kernel[0, 0, 1, 3] = kernel[1, 1, 2, 0] = 1
    assert circular_norm_bound(kernel).value == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize(("value", "bound"), [(0.0, 0.0), (np.nan, np.inf), (np.inf, np.inf)])
def test_weights_that_need_no_proof_or_have_none(value: float, bound: float) -> None:
    assert circular_norm_bound(np.full((1, 1, 2, 2), value, np.float32)).value == bound
