"""The training estimate against explicit matrices: value, gradient, buffers, precision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.lipschitz.power_iteration import (
    NormRequest,
    _ieee_products,
    estimate_norms,
    start_vector,
)
from tests.lipschitz.explicit import KINDS, convolution_matrix, convolution_norm, kernel_of

# (input size, kernel, stride, padding): LiResNet's, and sizes that the stride does not divide.
GEOMETRIES = [(8, 3, 1, 1), (9, 5, 2, 2), (13, 7, 4, 3), (14, 4, 4, 1), (15, 4, 4, 0), (6, 1, 1, 0)]


def conv_request(weight, size, stride=1, padding=0):
    vector = start_vector((weight.shape[1], size, size))
    return NormRequest(torch.as_tensor(weight), vector, stride, padding)


def random_weight(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_approaches_the_norm_of_the_explicit_matrix_from_below(geometry):
    size, kernel, stride, padding = geometry
    weight = random_weight(4, 3, kernel, kernel)
    truth = convolution_norm(weight, (size, size), (stride, stride), (padding, padding))
    request = conv_request(weight, size, stride, padding)
    estimates = [estimate_norms([request], n, update=False).item() for n in (0, 1, 5, 500)]
    assert estimates == sorted(estimates)
    assert estimates[0] < 0.9 * truth
    assert all(estimate <= truth * (1 + 1e-6) for estimate in estimates)
    assert estimates[-1] == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_kernel(kind):
    weight = torch.as_tensor(kernel_of(kind, (3, 2, 3, 3), seed=1), dtype=torch.float32)
    truth = convolution_norm(weight, (7, 7), (1, 1), (1, 1))
    estimate = estimate_norms([conv_request(weight, 7, 1, 1)], 500, update=False).item()
    assert truth * (1 - 1e-3) < estimate <= truth * (1 + 1e-6)


def test_warm_start_goes_on_where_it_stopped():
    weight = random_weight(5, 7)
    once = NormRequest(weight, start_vector((7,)))
    twice = NormRequest(weight, start_vector((7,)))
    estimate_norms([twice], 4, update=True)
    a, b = estimate_norms([once], 10, update=True), estimate_norms([twice], 6, update=True)
    assert torch.equal(a, b) and torch.equal(once.vector, twice.vector)
    assert torch.equal(estimate_norms([once], 0, update=False), a)
    assert torch.linalg.vector_norm(once.vector).item() == pytest.approx(1, abs=1e-6)


def test_requests_of_mixed_shapes_are_answered_each_as_alone_and_in_order():
    def requests():
        return [
            conv_request(random_weight(4, 4, 3, 3, seed=0), 8, 1, 1),
            NormRequest(random_weight(6, 9, seed=1), start_vector((9,))),
            conv_request(random_weight(4, 4, 3, 3, seed=2), 8, 1, 1),
            conv_request(random_weight(4, 4, 3, 3, seed=3), 9, 2, 1),
            NormRequest(random_weight(6, 9, seed=4), start_vector((9,))),
        ]

    together, alone = requests(), requests()
    estimates = estimate_norms(together, 3, update=True)
    expected = torch.cat([estimate_norms([request], 3, update=True) for request in alone])
    torch.testing.assert_close(estimates, expected)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.vector, other.vector)


def test_gradient_of_a_matrix_is_u_vt():
    weight = random_weight(6, 9, dtype=torch.float64).requires_grad_()
    request = NormRequest(weight, start_vector((9,)).double())
    estimate_norms([request], 2000, update=False).sum().backward()
    left, _, right = torch.linalg.svd(weight.detach())
    torch.testing.assert_close(weight.grad, torch.outer(left[:, 0], right[0]))


@pytest.mark.parametrize("geometry", GEOMETRIES[:4])
def test_gradient_of_a_convolution_is_that_of_the_largest_singular_value(geometry):
    size, kernel, stride, padding = geometry
    weight = random_weight(3, 2, kernel, kernel, dtype=torch.float64).requires_grad_()
    vector = start_vector((2, size, size)).double()
    request = NormRequest(weight, vector, stride, padding)
    estimate_norms([request], 2000, update=False).sum().backward()

    basis = torch.eye(2 * size * size, dtype=torch.float64).view(-1, 2, size, size)
    columns = F.conv2d(basis, weight, stride=stride, padding=padding).flatten(1)
    exact = torch.linalg.matrix_norm(columns, 2)
    (expected,) = torch.autograd.grad(exact, weight)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-7)


def test_gradient_agrees_with_finite_differences():
    weight = random_weight(3, 2, 3, 3, dtype=torch.float64)
    direction = random_weight(3, 2, 3, 3, seed=1, dtype=torch.float64)

    def norm(kernel):
        vector = start_vector((2, 6, 6)).double()
        return estimate_norms([NormRequest(kernel, vector, 1, 1)], 1000, update=False)[0]

    step = 1e-5
    difference = (norm(weight + step * direction) - norm(weight - step * direction)) / (2 * step)
    leaf = weight.clone().requires_grad_()
    norm(leaf).backward()
    assert (leaf.grad * direction).sum().item() == pytest.approx(difference.item(), rel=1e-6)


def test_updating_the_buffer_before_backward_leaves_the_gradient_alone():
    """The published code updates its vector in place between forward and backward: 54 % off."""
    weight = random_weight(4, 4, 3, 3).requires_grad_()
    gradients = []
    for update in (True, False):
        request = conv_request(weight, 8, 1, 1)
        estimate = estimate_norms([request], 2, update=update)
        if update:
            request.vector.zero_()
        gradients += torch.autograd.grad(estimate.sum(), weight)
    assert torch.equal(*gradients)


def test_zero_kernel_is_zero_without_nan_and_keeps_its_vector():
    for shape, input_shape in (((4, 3), (3,)), ((4, 3, 3, 3), (3, 6, 6))):
        weight = torch.zeros(shape, requires_grad=True)
        request = NormRequest(weight, start_vector(input_shape), padding=0)
        estimate = estimate_norms([request], 5, update=True)
        estimate.sum().backward()
        assert estimate.item() == 0
        assert torch.equal(weight.grad, torch.zeros(shape))
        assert torch.equal(request.vector, start_vector(input_shape))


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1e6, 1e12])
def test_small_and_large_kernels_are_estimated_in_proportion(scale):
    weight = random_weight(4, 3, 3, 3)
    usual = estimate_norms([conv_request(weight, 8, 1, 1)], 20, update=False).item()
    scaled = estimate_norms([conv_request(weight * scale, 8, 1, 1)], 20, update=False).item()
    assert scaled / scale == pytest.approx(usual, rel=1e-5)


def test_a_kernel_that_kills_constants_is_still_seen():
    weight = random_weight(2, 1, 2, 2)
    weight -= weight.mean(dim=(2, 3), keepdim=True)
    truth = convolution_norm(weight, (6, 6), (2, 2), (0, 0))
    estimate = estimate_norms([conv_request(weight, 6, 2, 0)], 200, update=False).item()
    assert estimate == pytest.approx(truth, rel=1e-3) and truth > 0.1


def test_start_vector_is_fixed_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = start_vector((3, 8, 8))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, start_vector((3, 8, 8)))
    assert first.dtype == torch.float32
    assert first.std() > 0 and torch.linalg.vector_norm(first).item() == pytest.approx(1)
    with torch.device("meta"):
        assert start_vector((4,)).is_meta


def test_bf16_autocast_does_not_touch_the_estimate():
    weight = random_weight(16, 16, 3, 3).requires_grad_()
    dense = random_weight(32, 64, seed=1).requires_grad_()
    results = []
    for enabled in (False, True):
        requests = [conv_request(weight, 8, 1, 1), NormRequest(dense, start_vector((64,)))]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            estimates = estimate_norms(requests, 5, update=True)
        gradients = torch.autograd.grad(estimates.sum(), (weight, dense))
        results.append([estimates, *gradients, *(request.vector for request in requests)])
    assert all(tensor.dtype == torch.float32 for tensor in results[1])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_tf32_is_off_for_the_products_and_as_before_after_them():
    def precisions():
        return (
            torch.backends.cudnn.conv.fp32_precision,
            torch.backends.cuda.matmul.fp32_precision,
        )

    before = precisions()
    with pytest.raises(KeyError), _ieee_products(torch.device("cuda")):
        assert precisions() == ("ieee", "ieee")
        raise KeyError
    assert precisions() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_estimates_as_the_cpu_does():
    weight = random_weight(64, 64, 3, 3)
    on_cpu = conv_request(weight, 16, 1, 1)
    on_gpu = NormRequest(weight.cuda(), on_cpu.vector.cuda(), 1, 1)
    estimates = [estimate_norms([request], 20, update=True).cpu() for request in (on_cpu, on_gpu)]
    torch.testing.assert_close(*estimates, rtol=1e-5, atol=0)


def test_the_transposed_product_is_the_adjoint():
    """One iteration lands on WᵀWv, computed from the explicit matrix."""
    for size, kernel, stride, padding in GEOMETRIES:
        weight = random_weight(3, 2, kernel, kernel, dtype=torch.float64)
        request = NormRequest(weight, start_vector((2, size, size)).double(), stride, padding)
        start = request.vector.flatten().numpy().copy()
        estimate_norms([request], 1, update=True)
        matrix = convolution_matrix(
            weight.numpy(), (size, size), (stride, stride), (padding, padding)
        )
        expected = matrix.T @ (matrix @ start)
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(request.vector.flatten().numpy(), expected, atol=1e-14)
