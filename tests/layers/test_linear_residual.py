"""The folded kernel: rounded once for export, and of one operator with one norm."""

import math

import numpy as np
import torch

from pipeline.layers.linear_residual import LinearResidual
from tests.lipschitz.explicit import convolution_norm


def trained_block(width=6, depth=3, size=5):
    torch.manual_seed(0)
    block = LinearResidual(width, depth, size)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block


def test_export_is_folded_in_float64_and_rounded_once():
    block = trained_block()
    (twin,) = block.export("backbone.0.conv", (6, 5, 5))
    weight = block.weight.detach().double().numpy()
    factor = block.beta.detach().double().numpy()[:, None, None, None] / math.sqrt(3)
    exact = factor * weight
    exact[range(6), range(6), 1, 1] += 1
    spacing = np.spacing(abs(exact).astype(np.float32)).astype(np.float64)
    assert (abs(twin.weight.astype(np.float64) - exact) <= spacing * (0.5 + 1e-6)).all()
    # Folding in float32 rounds three times; the difference shows somewhere.
    assert not np.array_equal(twin.weight, block.kernel().detach().numpy())


def test_request_and_export_are_about_the_folded_kernel():
    block = trained_block()
    request = block.norm_request()
    assert (request.stride, request.padding, request.vector.shape) == (1, 1, (6, 5, 5))
    torch.testing.assert_close(request.weight, block.kernel())
    (twin,) = block.export("backbone.0.conv", (6, 5, 5))
    truth = convolution_norm(twin.weight, (5, 5), (1, 1), (1, 1))
    assert truth <= twin.norm_bound().value < 1.1 * truth
    branch = twin.weight.astype(np.float64)
    branch[range(6), range(6), 1, 1] -= 1
    assert truth < 0.95 * (1 + convolution_norm(branch, (5, 5), (1, 1), (1, 1)))  # Section 3
