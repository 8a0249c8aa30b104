"""LOT and Cayley's convolution against explicit matrices and singular value decompositions."""

import numpy as np
import pytest
import torch

from pipeline.layers.fourier import CayleyConv2d, LotConv2d
from tests.lipschitz.test_circular import circular_matrix


def matrices(layer: LotConv2d | CayleyConv2d) -> tuple[np.ndarray, np.ndarray]:
    """The circular convolution with the free kernel, centred, and the exported one."""
    size, side = layer.input_size, layer.weight.shape[-1]
    free = np.zeros((*layer.weight.shape[:2], size, size))
    for s in range(side):
        for t in range(side):
            tap = layer.weight[:, :, s, t].detach().double().numpy()
            free[:, :, (s - side // 2) % size, (t - side // 2) % size] += tap
    (twin,) = layer.export("x", (len(layer.weight), size, size))
    return circular_matrix(free), circular_matrix(twin.tensors()["x.weight"].astype(np.float64))


@pytest.mark.parametrize(("channels", "side", "size"), [(2, 3, 3), (3, 3, 4), (2, 1, 5)])
def test_lot_is_the_polar_factor(channels: int, side: int, size: int) -> None:
    torch.manual_seed(0)
    free, found = matrices(LotConv2d(channels, side, size))
    left, _, right = np.linalg.svd(free)
    np.testing.assert_allclose(found, left @ right, atol=1e-6)


def test_lot_of_a_nearly_singular_kernel_contracts_and_never_expands() -> None:
    layer = LotConv2d(2, 3, 4)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 1], layer.weight[1, 1, 1, 1] = 1.0, 1e-4
    _, found = matrices(layer)
    singular = np.linalg.svd(found, compute_uv=False)
    assert singular[0] <= 1 + 1e-6 and singular[-1] < 0.1


@pytest.mark.parametrize(("channels", "side", "size"), [(2, 3, 3), (3, 3, 4)])
def test_cayley_is_the_cayley_transform_of_the_skew_part(
    channels: int, side: int, size: int
) -> None:
    torch.manual_seed(0)
    free, found = matrices(CayleyConv2d(channels, side, size))
    skew, identity = free - free.T, np.eye(len(free))
    np.testing.assert_allclose(found, np.linalg.solve(identity - skew, identity + skew), atol=1e-6)
    np.testing.assert_allclose(found @ found.T, identity, atol=1e-5)


def test_a_kernel_larger_than_its_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="a kernel of 5×5 is larger than maps of 4×4"):
        LotConv2d(2, 5, 4)
