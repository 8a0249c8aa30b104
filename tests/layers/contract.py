"""What every Lipschitz layer must hold: the harness of docs/adding_a_layer.md.

A layer of a new kind is added to `tests/layers/test_contract.py` with a way to make it and the
shape of an input; every function here is then a test of it. None of them trusts the layer: norms
come from Jacobians and dense singular values, gradients from finite differences, rounding from the
same computation in float32, and the second opinion from `pipeline.verify`.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.certify.rounding import LayerError
from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExportedLayer, layer_from_record
from pipeline.lipschitz.power_iteration import NormRequest, estimate_norms
from pipeline.verify.forward import _evaluate as independent_forward
from pipeline.verify.inspection import Inspection
from pipeline.verify.layers import Layer
from pipeline.verify.reading import read_layer
from pipeline.verify.rounding import LayerError as IndependentError
from pipeline.verify.strict_json import Record
from pipeline.verify.tensors import TensorStore


@dataclass(frozen=True)
class Case:
    """One layer under test."""

    make: Callable[[], LipschitzLayer]
    """A fresh layer; called after the seed is set."""
    shape: tuple[int, ...]
    """Of one input."""
    tightness: float = 1.2
    """The most that the bound may exceed the steepest slope that is found."""
    drift: float = 1e-5
    """How far, relatively, training form and certified form may differ (a truncated series)."""
    estimated: bool = True
    """Whether the layer has a training estimate of its own; the blocks of LipLT have none but their
    network's."""

    def trained(self) -> LipschitzLayer:
        """A fresh layer whose parameters are not those of its initialisation."""
        torch.manual_seed(0)
        layer = self.make()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        converge(layer)
        return layer

    @cache  # noqa: B019
    def exported(self) -> ExportedLayer:
        """The certified form of `trained`, which must be one layer."""
        (twin,) = self.trained().export("x.y", self.shape)
        return twin


def converge(layer: LipschitzLayer) -> None:
    """Set the layer's vectors where its power iteration leads, by a dense decomposition."""
    for request in requests_of(layer):
        _, _, right = torch.linalg.svd(matrix_of(request), full_matrices=False)
        request.vector.copy_(right[0].view_as(request.vector))


def matrix_of(request: NormRequest) -> Tensor:
    """The requested linear map as a matrix [out, in], float64."""
    weight = request.weight.detach().double()
    if weight.ndim == 2:
        return weight
    basis = torch.eye(request.vector.numel(), dtype=torch.float64)
    maps = basis.view(-1, *request.vector.shape)
    return F.conv2d(maps, weight, stride=request.stride, padding=request.padding).flatten(1).T


def requests_of(layer: LipschitzLayer) -> list[NormRequest]:
    """What the layer asks of the power iteration."""
    scale = layer.scale_request()
    return [*layer.norm_requests(), *([] if scale is None else [scale])]


def apply(layer: LipschitzLayer, x: Tensor) -> Tensor:
    """The layer in training, given the estimate that it asks for."""
    request = layer.scale_request()
    if request is None:
        return layer(x)
    return layer(x, estimate_norms([request], 0, update=False)[0])


def frozen_norm(layer: LipschitzLayer, twin: ExportedLayer) -> Tensor | None:
    """The norm with which a layer that scales itself takes the exported step."""
    request = layer.scale_request()
    if request is None:
        return None
    stored = twin.tensors()[f"{twin.name}.weight"]
    unit = float(request.weight.detach().abs().max()) / float(np.abs(stored).max())
    if twin.kind == "skew_exponential":
        return torch.tensor(unit)
    step = float(twin.tensors()[f"{twin.name}.step"][0])
    if twin.kind == "implicit_potential":
        return torch.tensor(math.sqrt(2 / step - 2))
    return torch.tensor(unit * math.sqrt(2 / step))


def points(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Iterator[Tensor]:
    """Inputs near the origin, in [0, 1] and far away, of one image each."""
    generator = torch.Generator().manual_seed(1)
    for scale in (0.01, 1.0, 30.0):
        for _ in range(3):
            yield scale * torch.randn(shape, generator=generator, dtype=dtype)
    yield torch.rand(shape, generator=generator, dtype=dtype)


def check_export_computes_the_same(case: Case) -> None:
    """Training form and certified form are one function, but for float32 and a proved bound."""
    layer, twin = case.trained(), case.exported()
    frozen = frozen_norm(layer, twin)
    for point in points(case.shape):
        exact = twin.forward(point[None])
        assert exact.dtype == torch.float64
        assert tuple(exact.shape[1:]) == twin.output_shape
        inputs = point[None].float()
        found = (layer(inputs) if frozen is None else layer(inputs, frozen)).detach()
        assert found.dtype == torch.float32
        assert float((found.double() - exact).norm()) <= case.drift * (float(exact.norm()) + 1)


def check_record_is_the_whole_layer(case: Case) -> None:
    """Written as JSON and float32 tensors and read back, it computes the same bits."""
    twin = case.exported()
    record = json.loads(json.dumps(record_of(twin)))
    again = layer_from_record(record, twin.tensors())
    assert again == twin or all(
        np.array_equal(again.tensors()[name], array) for name, array in twin.tensors().items()
    )
    for point in points(case.shape):
        assert torch.equal(again.forward(point[None]), twin.forward(point[None]))
    assert all(array.dtype == np.float32 for array in twin.tensors().values())
    assert all(name.startswith("x.y.") for name in twin.tensors())


def check_bound_is_not_below_any_slope(case: Case) -> None:
    """Jacobians at many points, and slopes between pairs near and far."""
    twin = case.exported()
    bound = twin.norm_bound().value
    assert math.isfinite(bound)
    steepest = 0.0
    for point in points(case.shape):
        jacobian = torch.autograd.functional.jacobian(
            lambda x: twin.forward(x[None])[0].flatten(), point
        )
        steepest = max(steepest, float(torch.linalg.matrix_norm(jacobian.flatten(1), 2)))
    assert steepest <= bound * (1 + 1e-12)
    assert bound <= case.tightness * steepest, (bound, steepest)
    generator = torch.Generator().manual_seed(2)
    for distance in (1e-6, 1e-2, 1.0, 100.0):
        x = torch.rand(100, *case.shape, generator=generator, dtype=torch.float64)
        y = x + distance * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        moved = (twin.forward(x) - twin.forward(y)).flatten(1).norm(dim=1)
        reach = bound * (x - y).flatten(1).norm(dim=1)
        assert bool((moved <= reach * (1 + 1e-9) + 1e-13).all())


def check_estimate_is_of_the_exported_layer(case: Case) -> None:
    """The training estimate converges to the certified constant, from below."""
    if not case.estimated:
        return
    layer, twin = case.trained(), case.exported()
    bound = twin.norm_bound().value
    requests = layer.norm_requests()
    if not requests:
        assert bound <= 1 + 1e-5
        return
    estimate = float(layer.lipschitz(list(estimate_norms(requests, 3, update=False))))
    assert estimate <= bound * (1 + 1e-5)
    assert bound <= case.tightness * estimate


def check_gradient_of_the_estimate(case: Case) -> None:
    """Along a random direction, against differences of the largest singular value in float64."""
    layer = case.trained().double()
    if not requests_of(layer) or not list(layer.parameters()):
        return
    directions = [torch.randn_like(parameter) for parameter in layer.parameters()]

    def norms(offset: float) -> Tensor:
        moved = copy.deepcopy(layer)
        with torch.no_grad():
            for parameter, direction in zip(moved.parameters(), directions, strict=True):
                parameter += offset * direction
        matrices = [matrix_of(request) for request in requests_of(moved)]
        return torch.stack([torch.linalg.matrix_norm(matrix, 2) for matrix in matrices])

    width = 1e-5
    difference = (norms(width) - norms(-width)) / (2 * width)
    converge(layer)
    found = estimate_norms(requests_of(layer), 0, update=False)
    for number, expected in enumerate(difference):
        gradients = torch.autograd.grad(
            found[number], list(layer.parameters()), retain_graph=True, allow_unused=True
        )
        slope = sum(
            float((gradient * direction).sum())
            for gradient, direction in zip(gradients, directions, strict=True)
            if gradient is not None
        )
        assert abs(slope - float(expected)) <= 1e-4 * (abs(float(expected)) + 1), number


def check_gradient_of_the_forward(case: Case) -> None:
    """With respect to input and parameters, against finite differences in float64."""
    layer = case.trained().double()
    x = next(points(case.shape))[None].requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    values = [parameter.detach().clone() for parameter in layer.parameters()]
    request = layer.scale_request()
    norm = None if request is None else estimate_norms([request], 0, update=False)[0].detach()

    def forward(point: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        inputs = (point,) if norm is None else (point, norm)
        return torch.func.functional_call(layer, given, inputs)

    inputs = (x, *(value.requires_grad_() for value in values))
    assert torch.autograd.gradcheck(forward, inputs, eps=1e-6, atol=1e-5, fast_mode=True)


def check_state_dict_is_everything(case: Case) -> None:
    """A fresh layer that loads the state does the same and estimates the same, bit for bit."""
    layer = case.trained()
    torch.manual_seed(7)
    again = case.make()
    again.load_state_dict(layer.state_dict())
    x = torch.stack([point.float() for point in points(case.shape)])
    assert torch.equal(apply(again, x), apply(layer, x))
    for mine, theirs in zip(requests_of(again), requests_of(layer), strict=True):
        assert torch.equal(mine.vector, theirs.vector)


def check_autocast(case: Case) -> None:
    """bf16 changes a little, not the sense, and the estimate not at all."""
    layer = case.trained()
    x = torch.rand(4, *case.shape)
    plain = apply(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = apply(layer, x)
        inside = [estimate_norms([request], 1, update=False) for request in requests_of(layer)]
    assert float((rough.float() - plain).norm()) <= 0.05 * float(plain.norm() + x.norm())
    outside = [estimate_norms([request], 1, update=False) for request in requests_of(layer)]
    assert all(torch.allclose(*pair) for pair in zip(inside, outside, strict=True))


def check_rounding_is_covered(case: Case) -> None:
    """The layer's own rounding terms with float32's unit cover what float32 does."""
    twin = case.exported()
    rounding = twin.rounding()
    unit = 2.0**-24
    for point in points(case.shape):
        x = point.float()[None]
        rough = twin.forward(x).double()
        exact = twin.forward(x.double())
        gap = float((rough - exact).norm())
        if rounding is None:
            assert gap == 0
            continue
        terms = rounding.fan_in + 1
        gamma = terms * unit / (1 - terms * unit)
        allowed = gamma * (rounding.abs_norm * float(x.double().norm()) + rounding.bias_norm)
        assert gap <= allowed * (1 + 1e-6) + 1e-30


def check_independent_check_agrees(case: Case) -> None:
    """`pipeline.verify` reads the record, computes the same, proves the bound, and no less."""
    twin = case.exported()
    layer = independent_layer(twin, twin.norm_bound().value)
    for point in points(case.shape):
        expected = twin.forward(point[None]).numpy()
        found = independent_forward(layer, point[None].numpy())
        assert found.shape == expected.shape
        size = 1 + float(point.norm())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * size)
    assert tuple(found.shape[1:]) == layer.output_shape
    proof = prove(layer)
    assert proof.holds and proof.bound <= layer.bound
    too_low = independent_layer(twin, twin.norm_bound().value / (case.tightness * 1.01))
    assert not prove(too_low).holds
    ours, theirs = twin.rounding(), IndependentError.of(layer)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        error = LayerError.of(layer.bound, ours)
        for norm in (1e-6, 1e-3, 1.0, 1e3):
            mine = float(error.after(np.zeros(1), np.array([norm]))[0])
            own = theirs.gamma * (theirs.abs_norm * norm + theirs.bias_norm) + theirs.underflow
            assert mine >= own * (1 - 1e-9), "a certificate of ours would be refused"


CHECKS = [
    check_export_computes_the_same,
    check_record_is_the_whole_layer,
    check_bound_is_not_below_any_slope,
    check_estimate_is_of_the_exported_layer,
    check_gradient_of_the_estimate,
    check_gradient_of_the_forward,
    check_state_dict_is_everything,
    check_autocast,
    check_rounding_is_covered,
    check_independent_check_agrees,
]


def record_of(twin: ExportedLayer) -> dict[str, object]:
    """As `ExportedNetwork.records`."""
    return {
        "name": twin.name,
        "kind": twin.kind,
        "input_shape": list(twin.input_shape),
        "attributes": twin.attributes(),
    }


def independent_layer(twin: ExportedLayer, bound: float) -> Layer:
    """What the independent check makes of the record, with a claim of `bound`."""
    proof = {"bound": bound, "method": "?", "evidence": twin.norm_bound().evidence}
    tensors = {name: array.astype(np.float64) for name, array in twin.tensors().items()}
    store = TensorStore(tensors)
    layer = read_layer(Record(record_of(twin) | proof, "layer"), store)
    store.all_taken()
    return layer


def prove(layer: Layer):
    """The independent proof of the claim."""
    return Inspection._prove(_Quiet(), layer)


class _Quiet:
    """What `Inspection._prove` needs of an inspection."""

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: None
