"""What the papers say of their layers, at explicit matrices; and what export makes of it."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.layers.aol import AolConv2d, AolDense
from pipeline.layers.group_sort import GroupSort
from pipeline.layers.orthogonal import BcopConv2d, CayleyDense
from pipeline.layers.skew import ExportedSkewExponential, SkewExponential, turned
from pipeline.layers.sll import SllConv2d, SllDense
from pipeline.layers.truncated_head import TruncatedHead
from tests.lipschitz.explicit import convolution_matrix, convolution_norm


@pytest.mark.parametrize("seed", range(3))
def test_aol_is_below_one_for_every_weight_and_size(seed: int) -> None:
    torch.manual_seed(seed)
    dense, conv = AolDense(6, 9), AolConv2d(3, 4, 3)
    with torch.no_grad():
        for layer in (dense, conv):
            layer.weight.normal_().mul_(10.0 ** (seed * 6 - 6))
    assert torch.linalg.matrix_norm(dense.folded(torch.float64), 2) <= 1 + 1e-12
    kernel = conv.folded(torch.float64).detach().numpy()
    for size in (3, 6):
        assert convolution_norm(kernel, (size, size), (1, 1), (1, 1)) <= 1 + 1e-12


@pytest.mark.parametrize(
    "layer",
    [AolDense(6, 9), AolConv2d(3, 4, 3), SllDense(6, 9), SllConv2d(3, 4, 3)],
    ids=lambda layer: type(layer).__name__,
)
def test_autocast_leaves_the_normalisation_in_float32(layer: Any) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.normal_()

    def normalisation() -> torch.Tensor:
        return layer.scales(layer.weight) if hasattr(layer, "scales") else layer.folded()

    plain = normalisation()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(normalisation(), plain)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (3, 5), (5, 3)])
def test_aol_begins_as_the_identity(inputs: int, outputs: int) -> None:
    weight = AolConv2d(inputs, outputs, 3).weight
    assert torch.equal(weight, torch.nn.init.dirac_(torch.empty(outputs, inputs, 3, 3)))


def test_a_column_of_zeros_stays_zero() -> None:
    layer = AolDense(3, 2)
    with torch.no_grad():
        layer.weight[:, 1] = 0
    layer(torch.randn(4, 3)).sum().backward()
    assert torch.equal(layer.folded()[:, 1], torch.zeros(2))
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 5), (7, 3), (3, 7)])
def test_cayley_is_orthogonal(inputs: int, outputs: int) -> None:
    matrix = CayleyDense(inputs, outputs).matrix(torch.float64)
    gram = matrix @ matrix.T if outputs <= inputs else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(min(inputs, outputs), dtype=torch.float64))


def test_bcop_is_orthogonal_away_from_the_border() -> None:
    """Every pixel whose window lies inside is turned without loss: columns of norm 1."""
    torch.manual_seed(0)
    kernel = BcopConv2d(4, 3).kernel(torch.float64).detach().numpy()
    assert kernel.shape == (4, 4, 3, 3)
    size = 5
    matrix = convolution_matrix(kernel, (size, size), (1, 1), (1, 1))
    gram = (matrix.T @ matrix).reshape(4, size, size, 4, size, size)
    inside = gram[:, 1:-1, 1:-1][..., 1:-1, 1:-1].reshape(4 * 9, 4 * 9)
    np.testing.assert_allclose(inside, np.eye(36), atol=1e-12)
    assert np.linalg.norm(matrix, 2) <= 1 + 1e-12


def test_skew_kernels_are_skew_matrices_and_stay_so_in_float32() -> None:
    torch.manual_seed(0)
    layer = SkewExponential(3, 3, 5)
    (twin,) = layer.export("x", (3, 5, 5))
    assert isinstance(twin, ExportedSkewExponential)
    matrix = convolution_matrix(twin.weight.astype(np.float64), (5, 5), (1, 1), (1, 1))
    assert np.array_equal(matrix, -matrix.T)
    truth = np.linalg.norm(matrix, 2)
    assert truth <= 1


@pytest.mark.parametrize("terms", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_bound_of_a_truncated_series(terms: int, scale: float) -> None:
    torch.manual_seed(1)
    (whole,) = SkewExponential(3, 3, 4).export("x", (3, 4, 4))
    assert isinstance(whole, ExportedSkewExponential)
    weight = (scale * whole.weight).astype(np.float32)
    twin = ExportedSkewExponential("x", (3, 4, 4), weight, whole.bias, terms)
    matrix = convolution_matrix(weight.astype(np.float64), (4, 4), (1, 1), (1, 1))
    total, term = np.eye(48), np.eye(48)
    for number in range(1, terms + 1):
        term = term @ matrix / number
        total = total + term
    norm, bound = np.linalg.norm(total, 2), twin.norm_bound().value
    assert norm <= bound
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = (x.flatten(1).numpy() @ total.T).reshape(2, 3, 4, 4)
    np.testing.assert_allclose(twin.forward(x).numpy(), expected, atol=1e-12)
    norm = twin.norm_bound().evidence["weight_norm"]
    assert bound == pytest.approx(1 + norm ** (terms + 1) / math.factorial(terms + 1))


def test_a_kernel_that_is_not_skew_is_refused() -> None:
    (twin,) = SkewExponential(2, 3, 4).export("x", (2, 4, 4))
    assert isinstance(twin, ExportedSkewExponential)
    assert np.array_equal(twin.weight, -turned(twin.weight))
    wrong = twin.weight.copy()
    wrong[0, 1, 1, 1] = np.nextafter(wrong[0, 1, 1, 1], np.float32(9))
    with pytest.raises(ValueError, match="its kernel is not skew"):
        ExportedSkewExponential("x", (2, 4, 4), wrong, twin.bias, 5)


def test_group_sort_sorts_consecutive_channels() -> None:
    x = torch.tensor([[3.0, 1.0, 2.0, 9.0, -1.0, 4.0]])
    assert GroupSort(3)(x).tolist() == [[1.0, 2.0, 3.0, -1.0, 4.0, 9.0]]
    with pytest.raises(ValueError, match="groups of 4 do not divide 6 channels"):
        GroupSort(4).export("x", (6,))


def test_truncation_takes_the_first_features() -> None:
    head = TruncatedHead(5, 3)
    features = torch.randn(4, 5)
    logits, distances = head(features)
    assert torch.equal(logits, features[:, :3])
    rows = torch.from_numpy(head.export().weight)
    torch.testing.assert_close(distances, torch.cdist(rows, rows))
    assert torch.equal(head.export().logits(features), logits)
    half, _ = head(features.bfloat16())
    assert half.dtype == torch.float32
