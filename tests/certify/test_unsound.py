"""The usual recipe: close to the truth, and on the wrong side of it."""

import numpy as np
import pytest
import torch

from pipeline.certify import certifier
from pipeline.certify.bounds import estimate_norms, prove_bounds
from pipeline.certify.unsound import UnsoundReference, power_iteration_norm, unsound_radii
from pipeline.layers.residual import ExportedResidual
from tests.certify.small import labelled_images, small_network


def explicit_norm(layer) -> float:
    """Largest singular value of the layer's matrix."""
    size = int(np.prod(layer.input_shape))
    units = torch.eye(size, dtype=torch.float64).view(size, *layer.input_shape)
    offset = layer.forward(torch.zeros_like(units[:1]))
    return float(torch.linalg.matrix_norm((layer.forward(units) - offset).flatten(1), 2))


def test_power_iteration_approaches_the_norm_from_below() -> None:
    for seed in range(3):
        network = small_network(seed)
        for layer, bound in zip(network.layers, prove_bounds(network), strict=True):
            estimate = power_iteration_norm(layer)
            if layer.kind in ("conv2d", "dense"):
                truth = explicit_norm(layer)
                assert 0.99 * truth < estimate <= truth * (1 + 1e-6)
                assert truth <= bound.value
            assert estimate <= bound.value * (1 + 1e-6)


def test_a_residual_block_is_one_and_the_product_of_its_norms() -> None:
    random = np.random.default_rng(0)
    kernels = [
        random.standard_normal(shape).astype(np.float32) for shape in ((4, 2, 3, 3), (2, 4, 3, 3))
    ]
    biases = [random.standard_normal(n).astype(np.float32) for n in (4, 2)]
    block = ExportedResidual("block", (2, 5, 5), (kernels[0], kernels[1]), (biases[0], biases[1]))
    truth = 1 + np.prod([explicit_norm(each) for each in block.convolutions()])
    assert 0.99 * truth < power_iteration_norm(block) <= truth * (1 + 1e-6)


def test_a_kernel_of_zeros_has_norm_zero() -> None:
    network = small_network(0)
    network.layers[1].weight[:] = 0
    assert estimate_norms(network)[1] == 0


def test_radii_are_those_of_the_certifier_up_to_what_is_not_proved() -> None:
    network = small_network(4)
    images, labels = (torch.from_numpy(a) for a in labelled_images(network, 4, 100))
    sound = certifier(network).certify(images, labels)
    scores = UnsoundReference(network).scores(images, labels)
    unsound = unsound_radii(scores, float(np.prod(estimate_norms(network))))
    certified = sound.radius > 0
    assert certified.sum() > 50
    assert not unsound[~sound.correct].any()
    assert (unsound[certified] > sound.radius[certified] * (1 - 1e-5)).all()
    assert unsound[certified].sum() == pytest.approx(sound.radius[certified].sum(), rel=0.2)


def test_division_by_a_constant_of_zero() -> None:
    assert unsound_radii(np.array([2.0, 0.0]), 0.0).tolist() == [np.inf, 0.0]
