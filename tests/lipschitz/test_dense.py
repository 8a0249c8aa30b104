"""Certified norms of matrices against LAPACK and 60-digit singular values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.lipschitz import certified_dense_norm
from pipeline.lipschitz.dense import dense_norm_bound
from tests.lipschitz.explicit import exact_norm


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.integers(-1073, 900),
    st.sampled_from([0, 1, 30, 300]),
)
def test_never_below_at_any_scale(rows, columns, seed, exponent, spread):
    """Entries 2^-1073 to 2^1000, subnormals among them, up to 600 powers of two apart."""
    rng = np.random.default_rng(seed)
    powers = exponent + rng.integers(-spread, spread + 1, (rows, columns))
    weight = np.ldexp(rng.standard_normal((rows, columns)), np.minimum(powers, 1000))
    bound = dense_norm_bound(weight)
    truth = exact_norm(weight)
    assert bound.value >= truth
    if truth > 0 and exponent > -900:
        assert truth <= bound.evidence["proved"]
        assert bound.value <= truth * (1 + 1.4e-6)


@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (128, 128), (1, 300), (300, 1)])
def test_tight_for_larger_matrices(shape):
    weight = np.random.default_rng(0).standard_normal(shape)
    truth = np.linalg.norm(weight, 2)
    for given_weight in (weight, weight.T, torch.tensor(weight)):
        assert truth < certified_dense_norm(given_weight) < truth * (1 + 1.4e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_float_dtype_is_taken_as_it_is(dtype):
    weight = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    exact = weight.double().numpy()
    assert certified_dense_norm(weight) == certified_dense_norm(exact) > np.linalg.norm(exact, 2)


def test_lists_and_integers():
    assert 2 <= certified_dense_norm([[2, 0], [0, 1]]) <= 2 * (1 + 1.4e-6)
    with pytest.raises(ValueError, match="float64 cannot hold"):
        certified_dense_norm(np.array([[2**53 + 1]]))
    if np.finfo(np.longdouble).nmant > 52:
        with pytest.raises(ValueError, match="float64 cannot hold"):
            certified_dense_norm(np.array([[1]], dtype=np.longdouble) / 3)


@pytest.mark.parametrize("weight", [np.ones(3), np.ones((0, 2)), np.ones((2, 2, 1))])
def test_a_wrong_shape_is_named(weight):
    with pytest.raises(ValueError, match=r"\[O, I\] is needed"):
        certified_dense_norm(weight)


@pytest.mark.parametrize("weight", [np.ones((2, 2), complex), np.ones((2, 2), bool), [["a"]]])
def test_a_wrong_dtype_is_named(weight):
    with pytest.raises(ValueError, match="real floating dtype"):
        certified_dense_norm(weight)
    with pytest.raises(ValueError, match="real floating dtype"):
        certified_dense_norm(torch.ones(2, 2, dtype=torch.complex64))


def test_zero_nan_and_inf():
    assert certified_dense_norm(np.zeros((3, 2))) == 0.0
    assert certified_dense_norm(np.array([[1.0, np.nan]])) == math.inf
    assert certified_dense_norm(np.array([[1.0, -np.inf]])) == math.inf
    assert certified_dense_norm(np.full((2, 2), 1.7e308)) == math.inf


def test_evidence_repeats_the_proof():
    weight = np.random.default_rng(1).standard_normal((6, 4)) * 1e5
    evidence = dense_norm_bound(weight).evidence
    square = math.ldexp(evidence["q"], evidence["q_exponent"])
    assert np.linalg.eigvalsh(square * np.eye(4) - weight.T @ weight).min() > 0
    assert evidence["proved"] ** 2 == pytest.approx(square, rel=1e-9)
    assert dense_norm_bound(weight).value == pytest.approx(evidence["proved"] * (1 + 1e-6))
