"""Every layer: training form and exported twin are one function, and the bound holds."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.conv2d import Conv2d, ExportedConv2d
from pipeline.layers.dense import Dense
from pipeline.layers.exported import layer_from_record
from pipeline.layers.flatten import Flatten
from pipeline.layers.linear_residual import LinearResidual
from pipeline.layers.minmax import MinMax
from pipeline.layers.shift import Shift


def shaken(layer: LipschitzLayer) -> LipschitzLayer:
    """Parameters as after some training, not as initialised."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


LAYERS = {
    "conv": (lambda: Conv2d(2, 4, 3, 1, 1, 6), (2, 6, 6)),
    "strided": (lambda: Conv2d(3, 6, 5, 2, 2, 8), (3, 8, 8)),
    "patches": (lambda: Conv2d(3, 4, 4, 4, 0, 10), (3, 10, 10)),
    "residual": (lambda: LinearResidual(4, 3, 5), (4, 5, 5)),
    "dense": (lambda: Dense(7, 5), (7,)),
    "minmax": (lambda: MinMax(), (6, 3, 3)),
    "minmax_vector": (lambda: MinMax(), (8,)),
    "flatten": (lambda: Flatten(), (2, 3, 4)),
    "shift": (lambda: Shift(0.5), (3, 4, 4)),
}


@pytest.fixture(params=LAYERS, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[LipschitzLayer, tuple[int, ...]]:
    make, shape = LAYERS[request.param]
    return shaken(make()), shape


def test_the_twin_computes_the_same(case: tuple[LipschitzLayer, tuple[int, ...]]) -> None:
    layer, shape = case
    (twin,) = layer.export("x", shape)
    images = torch.rand(5, *shape)
    exact = twin.forward(images.double())
    assert exact.dtype == torch.float64
    assert tuple(exact.shape[1:]) == twin.output_shape
    assert torch.allclose(layer(images).double(), exact, atol=1e-5)


def test_the_twin_reads_back_from_its_record(
    case: tuple[LipschitzLayer, tuple[int, ...]],
) -> None:
    layer, shape = case
    (twin,) = layer.export("a.b", shape)
    record = {
        "name": "a.b",
        "kind": twin.kind,
        "input_shape": list(shape),
        "attributes": twin.attributes(),
    }
    again = layer_from_record(record, twin.tensors())
    x = torch.rand(2, *shape, dtype=torch.float64)
    assert torch.equal(again.forward(x), twin.forward(x))
    assert all(array.dtype == np.float32 for array in twin.tensors().values())


def test_the_bound_is_not_below_any_slope(case: tuple[LipschitzLayer, tuple[int, ...]]) -> None:
    layer, shape = case
    (twin,) = layer.export("x", shape)
    bound = twin.norm_bound().value
    jacobian = torch.autograd.functional.jacobian(
        lambda x: twin.forward(x[None])[0].flatten(), torch.rand(shape, dtype=torch.float64)
    )
    norm = float(torch.linalg.matrix_norm(jacobian.flatten(1), 2))
    assert norm <= bound <= 1.2 * norm
    x, y = torch.rand(2, 50, *shape, dtype=torch.float64)
    moved = (twin.forward(x) - twin.forward(y)).flatten(1).norm(dim=1)
    assert bool((moved <= bound * (x - y).flatten(1).norm(dim=1)).all())


def test_the_request_is_the_layers_own_slope(
    case: tuple[LipschitzLayer, tuple[int, ...]],
) -> None:
    from pipeline.lipschitz.power_iteration import estimate_norms

    layer, shape = case
    (twin,) = layer.export("x", shape)
    asked = layer.norm_request()
    if asked is None:
        assert twin.norm_bound().value == 1.0
        return
    estimate = estimate_norms([asked], 3000, update=False)[0].item()
    bound = twin.norm_bound().value
    assert estimate <= bound * (1 + 1e-6)
    assert estimate == pytest.approx(bound, rel=0.15)


def test_rounding_says_fan_in_and_absolute_norms(
    case: tuple[LipschitzLayer, tuple[int, ...]],
) -> None:
    layer, shape = case
    (twin,) = layer.export("x", shape)
    rounding = twin.rounding()
    if rounding is None:
        assert not twin.tensors()
        return
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    assert rounding.bias_norm >= float(twin.forward(zero).norm()) * (1 - 1e-12)
    if "x.weight" in twin.tensors():
        weight = twin.tensors()["x.weight"]
        assert rounding.fan_in == weight[0].size
        absolute = type(twin)(**{**vars(twin), "weight": np.abs(weight), "bias": 0 * twin.bias})
        jacobian = torch.autograd.functional.jacobian(
            lambda x: absolute.forward(x[None])[0].flatten(), zero[0]
        )
        assert rounding.abs_norm >= float(torch.linalg.matrix_norm(jacobian.flatten(1), 2))


def test_linear_residual_is_x_plus_a_scaled_convolution() -> None:
    layer = shaken(LinearResidual(4, 9, 5))
    assert isinstance(layer, LinearResidual)
    x = torch.randn(3, 4, 5, 5)
    branch = F.conv2d(x, layer.weight, padding=1) * layer.beta.view(1, 4, 1, 1)
    expected = x + branch / math.sqrt(9) + layer.bias.view(1, 4, 1, 1)
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_linear_residual_begins_as_the_identity() -> None:
    layer = LinearResidual(32, 4, 8)
    x = torch.randn(2, 32, 8, 8)
    assert float((layer(x).detach() - x).norm() / x.norm()) < 0.1


def test_minmax_sorts_and_keeps_every_bit() -> None:
    x = torch.randn(4, 6, 3, 3) * torch.logspace(-30, 30, 6).view(1, 6, 1, 1)
    y = MinMax()(x)
    assert torch.equal(y[:, :3], torch.maximum(x[:, :3], x[:, 3:]))
    assert torch.equal(y[:, 3:], torch.minimum(x[:, :3], x[:, 3:]))
    assert torch.equal(x.flatten().sort().values, y.flatten().sort().values)


def test_minmax_gradient() -> None:
    """Against torch's own maximum and minimum, and against differences."""
    x = torch.randn(3, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    towards = torch.randn(3, 6, 2, 2, dtype=torch.float64)
    (ours,) = torch.autograd.grad(MinMax()(x), x, towards)
    halves = torch.cat([torch.maximum(x[:, :3], x[:, 3:]), torch.minimum(x[:, :3], x[:, 3:])], 1)
    (theirs,) = torch.autograd.grad(halves, x, towards)
    assert torch.equal(ours, theirs)
    assert torch.autograd.gradcheck(MinMax(), x)
    assert torch.autograd.gradgradcheck(MinMax(), x)


def test_odd_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="odd number, 5; choose an even width"):
        MinMax().export("act", (5, 2, 2))


def test_an_unknown_kind_is_an_error() -> None:
    record = {"name": "x", "kind": "attention", "input_shape": [4], "attributes": {}}
    with pytest.raises(ValueError, match="unknown kind 'attention'"):
        layer_from_record(record, {})


def test_tensors_that_do_not_fit_are_named() -> None:
    weight, bias = np.ones((4, 3, 3, 3), np.float32), np.ones(4, np.float32)
    with pytest.raises(ValueError, match="input of c"):
        ExportedConv2d("c", (2, 8, 8), weight, bias, 1, 1)
    with pytest.raises(ValueError, match=r"c\.bias"):
        ExportedConv2d("c", (3, 8, 8), weight, bias[:3], 1, 1)
    with pytest.raises(ValueError, match="too small for a kernel"):
        ExportedConv2d("c", (3, 2, 2), weight, bias, 1, 0)


def test_a_layer_without_an_answer_cannot_be_made() -> None:
    class Silent(LipschitzLayer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(TypeError, match="abstract"):
        Silent()
    assert issubclass(LipschitzLayer, nn.Module)
