"""Certified norms of convolutions against explicit matrices: never below, and hardly above."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh

from pipeline.lipschitz import certified_conv2d_norm
from pipeline.lipschitz.conv import conv2d_norm_bound
from tests.lipschitz.explicit import KINDS, convolution_norm, exact_norm, kernel_of

LARGEST_MATRIX = 600
"""Rows and columns of an explicit matrix; its SVD takes about a tenth of a second."""


@st.composite
def convolutions(draw):
    """Shape [O, I, kh, kw], input size, stride and padding per axis; the matrix stays small."""
    size, kernel, stride, padding, outputs = [], [], [], [], []
    for _ in range(2):
        s = draw(st.sampled_from([1, 1, 1, 2, 2, 4, 14]))
        p = draw(st.integers(0, 3))
        k = draw(st.integers(1, 14) if s == 14 else st.integers(1, 7))
        n = draw(st.integers(1, 8) | st.integers(4, 32))
        assume(n + 2 * p >= k)
        for values, value in ((size, n), (kernel, k), (stride, s), (padding, p)):
            values.append(value)
        outputs.append((n + 2 * p - k) // s + 1)
    most = [LARGEST_MATRIX // math.prod(pixels) for pixels in (outputs, size)]
    assume(min(most) >= 1)
    channels = [draw(st.integers(1, min(4, count))) for count in most]
    return (*channels, *kernel), tuple(size), tuple(stride), tuple(padding)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(convolutions(), st.sampled_from(KINDS), st.integers(0, 2**31))
def test_never_below_the_explicit_matrix(geometry, kind, seed):
    shape, size, stride, padding = geometry
    weight = kernel_of(kind, shape, seed)
    bound = conv2d_norm_bound(weight, size, stride, padding)
    truth = convolution_norm(weight, size, stride, padding)
    assert bound.value >= truth * (1 + 1e-12)  # the slack is more than LAPACK's rounding
    if weight.any():
        assert bound.evidence["proved"] >= truth * (1 - 1e-12)  # LAPACK's own rounding


def operator_norm_from_below(weight, size, stride, padding):
    """Lanczos on the operator itself, by torch: from below, which makes tightness tests strict."""
    kernel = torch.tensor(weight)
    shape = (1, weight.shape[1], size, size)

    def product(vector):
        image = F.conv2d(torch.tensor(vector).view(shape), kernel, None, stride, padding)
        back = torch.nn.grad.conv2d_input(shape, kernel, image, stride, padding)
        return back.numpy().ravel()

    count = math.prod(shape)
    operator = LinearOperator((count, count), product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(count)
    return math.sqrt(eigsh(operator, k=1, tol=1e-4, v0=start, return_eigenvectors=False)[0])


LIRESNET = {
    "backbone": ((24, 24, 3, 3), 16, 1, 1),
    "cifar stem": ((32, 3, 5, 5), 32, 2, 2),
    "tiny imagenet stem": ((32, 3, 7, 7), 64, 4, 3),
    "imagenet stem": ((32, 3, 14, 14), 224, 14, 0),
    "neck": ((24, 24, 4, 4), 16, 4, 0),
}


@pytest.mark.parametrize("kind", ["random", "trained"])
@pytest.mark.parametrize("layer", LIRESNET)
def test_within_one_percent_at_the_shapes_of_liresnet(layer, kind):
    shape, size, stride, padding = LIRESNET[layer]
    weight = kernel_of(kind, shape, 1)
    truth = operator_norm_from_below(weight, size, stride, padding)
    bound = certified_conv2d_norm(weight, size, stride, padding)
    assert truth <= bound <= truth * 1.01


@pytest.mark.parametrize("shape", [(6, 5, 4, 4), (3, 2, 14, 14), (2, 7, 1, 1)])
def test_stride_equal_kernel_is_exact(shape):
    weight = kernel_of("random", shape, 0)
    kernel = shape[2]
    for size in (kernel, 2 * kernel, 3 * kernel - 1):
        truth = np.linalg.norm(weight.reshape(shape[0], -1), 2)
        bound = conv2d_norm_bound(weight, size, kernel, 0)
        assert truth <= bound.value <= truth * (1 + 1.3e-6)
        assert bound.evidence["blocks"] == 1


def test_the_half_twist_of_a_box_filter_is_exact():
    """[1, 1, 1] ⊗ [1, 1, 1] with padding 1: (1 + 2cos(π/17))²."""
    truth = (1 + 2 * math.cos(math.pi / 17)) ** 2
    bound = conv2d_norm_bound(np.ones((1, 1, 3, 3)), 16, 1, 1)
    assert truth <= bound.value <= truth * (1 + 1.3e-6)
    assert bound.evidence["torus"] == [17, 17]
    assert bound.evidence["twist"] == ["1/2", "1/2"]


def test_circ_n_would_be_caught():
    """The torus of the input's own size falls below padded convolutions; ours never does."""
    weight = np.array([1.0, 0.0, -1.0]).reshape(1, 1, 1, 3)
    truth = 2 * math.cos(math.pi / 7)  # skew and tridiagonal on 6 pixels
    assert convolution_norm(weight, (1, 6), (1, 1), (0, 1)) == pytest.approx(truth, rel=1e-14)
    assert np.abs(np.fft.fft(weight.ravel(), 6)).max() < 0.97 * truth  # circ(6): √3
    assert truth < certified_conv2d_norm(weight, (1, 6), 1, (0, 1))
    below = 0
    for seed in range(60):
        weight = kernel_of("random", (1, 1, 3, 3), seed)
        truth = convolution_norm(weight, (3, 3), (1, 1), (1, 1))
        below += np.abs(np.fft.fft2(weight[0, 0], s=(3, 3))).max() < truth * (1 - 1e-6)
        assert certified_conv2d_norm(weight, 3, 1, 1) >= truth
    assert below >= 1


def test_plain_power_iteration_lies_below():
    for seed, kind in enumerate(["random", "trained", "positive", "alternating"]):
        weight = torch.tensor(kernel_of(kind, (3, 3, 3, 3), seed))
        vector = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(seed)).double()
        bound = certified_conv2d_norm(weight, 9, 1, 1)
        for _ in range(60):
            image = F.conv2d(vector / vector.norm(), weight, padding=1)
            estimate = float(image.norm())
            assert estimate < bound
            vector = F.conv_transpose2d(image, weight, padding=1)
        assert bound < 1.05 * estimate


def test_an_orthogonal_kernel_has_norm_one():
    """Every σ of every block is 1: no estimate may run away."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    weight = np.zeros((12, 12, 3, 3))
    weight[:, :, 0, 2] = rotation
    bound = conv2d_norm_bound(weight, 9, 1, 1)
    assert 1 - 1e-14 < bound.evidence["proved"] < 1 + 3e-7
    assert bound.method == "torus-cholesky"


@pytest.mark.parametrize("exponent", [-1060, -900, -300, 17, 900])
def test_a_power_of_two_scales_the_bound_exactly(exponent):
    weight = kernel_of("random", (3, 2, 3, 3), 4).astype(np.float16).astype(np.float64)
    plain = certified_conv2d_norm(weight, 7, 2, 1)
    scaled = certified_conv2d_norm(np.ldexp(weight, exponent), 7, 2, 1)
    if exponent > -1000:
        assert scaled == math.ldexp(plain, exponent)
    else:  # subnormal weights are other numbers; the bound rounds up
        truth = exact_norm(np.ldexp(weight, exponent)[:, :, 1, 1])
        assert truth <= scaled <= math.ldexp(plain * 1.1, exponent)


def test_a_norm_beyond_float64_is_infinite():
    assert certified_conv2d_norm(np.full((4, 4, 3, 3), 1.5e308), 5, 1, 1) == math.inf


def test_permuting_channels_hardly_moves_the_bound():
    weight = kernel_of("random", (5, 4, 3, 3), 8)
    shuffled = weight[[3, 1, 4, 0, 2]][:, [2, 0, 3, 1]]
    bounds = [certified_conv2d_norm(w, 8, 1, 1) for w in (weight, shuffled)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_dtype_is_taken_as_it_is(dtype):
    weight = torch.tensor(kernel_of("random", (3, 3, 3, 3), 2)).to(dtype).requires_grad_()
    bound = certified_conv2d_norm(weight, 6, 1, 1)
    assert bound == certified_conv2d_norm(weight.detach().double().numpy(), (6, 6), (1, 1), [1, 1])
    truth = convolution_norm(weight.detach().double().numpy(), (6, 6), (1, 1), (1, 1))
    assert truth <= bound


def test_zero_nan_and_inf():
    weight = np.zeros((2, 3, 3, 3))
    assert certified_conv2d_norm(weight, 5, 1, 1) == 0.0
    for bad in (np.nan, np.inf):
        weight[1, 2, 0, 0] = bad
        bound = conv2d_norm_bound(weight, 5, 1, 1)
        assert bound.value == math.inf
        assert "1 of 54 entries" in bound.evidence["reason"]


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((2, 2, 3), (5,), r"\[O, I, kh, kw\]"),
        ((2, 0, 3, 3), (5,), r"\[O, I, kh, kw\]"),
        ((2, 2, 3, 3), (0,), "input_size"),
        ((2, 2, 3, 3), (5, 0), "stride"),
        ((2, 2, 3, 3), (5, 1, -1), "padding"),
        ((2, 2, 3, 3), (5, 1, "same"), "padding"),
        ((2, 2, 7, 3), (4, 1, 1), "kernel of length 7 does not fit into an input of 4"),
    ],
)
def test_wrong_arguments_are_named(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        certified_conv2d_norm(np.ones(shape), *arguments)


def test_the_bound_does_not_depend_on_threads_or_on_the_run(monkeypatch):
    weight = kernel_of("trained", (40, 40, 3, 3), 1)
    monkeypatch.setattr("pipeline.lipschitz.conv.CHUNK_BYTES", 2**18)  # many pieces of work
    before = torch.get_num_threads()
    try:
        bounds = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            bounds.append(conv2d_norm_bound(weight, 8, 1, 1))
    finally:
        torch.set_num_threads(before)
    assert all(bound == bounds[0] for bound in bounds)


def test_a_bad_estimate_costs_nothing_but_time(monkeypatch):
    """Even a Lanczos that sees nothing at all cannot bring the bound down."""
    weight = kernel_of("random", (4, 3, 3, 3), 3)
    good = certified_conv2d_norm(weight, 8, 1, 1)
    monkeypatch.setattr("pipeline.lipschitz.conv.ROUGH_STEPS", 1)
    monkeypatch.setattr("pipeline.lipschitz.conv.FINE_STEPS", 1)
    monkeypatch.setattr("pipeline.lipschitz.conv.STEEPEST", 1)
    bad = certified_conv2d_norm(weight, 8, 1, 1)
    assert bad >= convolution_norm(weight, (8, 8), (1, 1), (1, 1))
    assert bad == pytest.approx(good, rel=0.03)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_never_below_larger_matrices(kind):
    for shape, size, stride, padding in [
        ((8, 3, 5, 5), (32, 32), (2, 2), (2, 2)),
        ((8, 8, 3, 3), (16, 16), (1, 1), (1, 1)),
        ((6, 3, 7, 7), (32, 24), (4, 4), (3, 3)),
        ((16, 3, 14, 14), (28, 28), (14, 14), (0, 0)),
    ]:
        weight = kernel_of(kind, shape, 0)
        bound = certified_conv2d_norm(weight, size, stride, padding)
        assert bound >= convolution_norm(weight, size, stride, padding)


@pytest.mark.long
def test_a_layer_of_588_channels():
    """L12W588: as wide as LiResNet gets, against Lanczos on the operator."""
    weight = kernel_of("trained", (588, 588, 3, 3), 0).astype(np.float32)
    bound = conv2d_norm_bound(weight, 16, 1, 1)
    truth = operator_norm_from_below(weight.astype(np.float64), 16, 1, 1)
    assert truth <= bound.value <= truth * 1.01
    assert bound.method == "torus-cholesky"
