"""Convolutions: the exported twin against the explicit matrix, bit for bit in any pieces."""

import numpy as np
import pytest
import torch

from pipeline.layers import conv2d
from pipeline.layers.conv2d import Conv2d, ExportedConv2d
from tests.lipschitz.explicit import convolution_matrix

# (input size, kernel, stride, padding) of LiResNet, and one that the stride does not divide.
GEOMETRIES = [(8, 3, 1, 1), (10, 5, 2, 2), (12, 7, 4, 3), (14, 4, 4, 1), (28, 14, 14, 0)]


def layer_and_twin(geometry, in_channels=2, out_channels=3):
    size, kernel, stride, padding = geometry
    torch.manual_seed(0)
    layer = Conv2d(in_channels, out_channels, kernel, stride, padding, input_size=size)
    torch.nn.init.normal_(layer.bias)
    (twin,) = layer.export("stem.conv", (in_channels, size, size))
    assert isinstance(twin, ExportedConv2d)
    return layer, twin


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_twin_computes_the_explicit_matrix(geometry):
    size, _, stride, padding = geometry
    layer, twin = layer_and_twin(geometry)
    x = torch.rand(3, 2, size, size, dtype=torch.float64)
    y = twin.forward(x)
    matrix = convolution_matrix(
        twin.weight.astype(np.float64), (size, size), (stride, stride), (padding, padding)
    )
    expected = x.flatten(1).numpy() @ matrix.T
    expected = expected.reshape(y.shape) + twin.bias.astype(np.float64)[:, None, None]
    assert y.dtype == torch.float64 and y.shape[1:] == twin.output_shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(layer(x.float()), y.float(), rtol=1e-5, atol=1e-5)


def test_unfolding_piece_by_piece_changes_no_bit(monkeypatch):
    _, twin = layer_and_twin(GEOMETRIES[0])
    x = torch.rand(7, 2, 8, 8, dtype=torch.float64)
    whole = twin.forward(x)
    monkeypatch.setattr(conv2d, "COLUMN_ENTRIES", 2 * 2 * 9 * 64)
    assert torch.equal(twin.forward(x), whole)
    monkeypatch.setattr(conv2d, "COLUMN_ENTRIES", 1)
    assert torch.equal(twin.forward(x), whole)


def test_flattened_kernel_is_orthogonal_at_the_start():
    weight = Conv2d(3, 12, 4, 4, 0, input_size=8).weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(12))


def test_records_that_make_no_convolution_are_refused():
    _, twin = layer_and_twin(GEOMETRIES[0])
    with pytest.raises(ValueError, match=r"'stem\.conv': stride is 0"):
        attributes = {"stride": 0, "padding": 1}
        ExportedConv2d.from_record("stem.conv", (2, 8, 8), attributes, twin.tensors())
    with pytest.raises(ValueError, match=r"'stem\.conv': padding is True"):
        attributes = {"stride": 1, "padding": True}
        ExportedConv2d.from_record("stem.conv", (2, 8, 8), attributes, twin.tensors())
    with pytest.raises(ValueError, match=r"stem\.conv\.weight.*float64 with 4 axes"):
        wide = {name: array.astype(np.float64) for name, array in twin.tensors().items()}
        ExportedConv2d.from_record("stem.conv", (2, 8, 8), twin.attributes(), wide)


def test_export_copies():
    """A certificate must not change when training goes on."""
    layer, twin = layer_and_twin(GEOMETRIES[0])
    before = twin.weight.copy()
    with torch.no_grad():
        layer.weight.zero_()
    assert np.array_equal(twin.weight, before)
