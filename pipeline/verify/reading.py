"""Reads one layer of the certified function from its record and the stored tensors.

Notable: a kind that is not known here is refused, never taken to be 1-Lipschitz; so is an attribute
that is not understood.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pipeline.verify.circular import read_circular
from pipeline.verify.convolutions import LARGEST_LAYER, hint_of, read_convolution
from pipeline.verify.elementary import SLOPES
from pipeline.verify.layers import Layer
from pipeline.verify.refusal import quote, require
from pipeline.verify.shapes import SIZES, output_shape, read_size
from pipeline.verify.strict_json import Record
from pipeline.verify.tensors import TensorStore
from pipeline.verify.torus import Axis

WITHOUT_WEIGHTS = {"minmax", "flatten", *SIZES}
MOST_TERMS = 64
LARGEST_SIDE = 1024


def read_layer(record: Record, store: TensorStore) -> Layer:
    """The layer of one record of `layers`, with its tensors.

    Raises:
        Refusal: an unknown kind or attribute; shapes that do not fit.
    """
    name, kind = record.text("name"), record.text("kind")
    record.where = f"layer {quote(name)}"
    record.only({"name", "kind", "input_shape", "attributes", "bound", "method", "evidence"})
    record.text("method")
    evidence = record.record("evidence").values
    bound = record.number("bound")
    require(bound >= 0, f"{record.where} claims the bound {bound!r}, which is negative")
    shape = record.shape("input_shape", (1, 3))
    require(
        math.prod(shape) <= LARGEST_LAYER and max(shape[1:], default=1) <= LARGEST_SIDE,
        f"{record.where} takes inputs of shape {list(shape)}, larger than this program checks",
    )
    attributes = record.record("attributes")
    if kind == "conv2d":
        return read_convolution(name, shape, bound, attributes, evidence, store)
    if kind == "dense":
        attributes.only(set())
        weight, bias = store.take(f"{name}.weight", 2), store.take(f"{name}.bias", 1)
        require(
            shape == weight.shape[1:] and bias.shape == weight.shape[:1],
            f"{record.where}: input {list(shape)}, weight {list(weight.shape)} and bias "
            f"{list(bias.shape)} do not fit",
        )
        return Layer(name, kind, shape, weight.shape[:1], bound, weight, bias)
    if kind == "shift":
        attributes.only({"center"})
        center = attributes.number("center")
        return Layer(name, kind, shape, shape, bound, center=center)
    if kind == "scale":
        attributes.only({"factor"})
        return Layer(name, kind, shape, shape, bound, factor=attributes.number("factor"))
    if kind == "activation":
        attributes.only({"function"})
        function = attributes.text("function")
        require(function in SLOPES, f"{record.where} has the unknown activation {quote(function)}")
        return Layer(name, kind, shape, shape, bound, function=function)
    if kind == "slope_residual":
        return _read_slope_residual(name, shape, bound, attributes, store)
    if kind == "skew_exponential":
        attributes.only({"terms"})
        terms = attributes.count("terms", 1, MOST_TERMS)
        return _read_skew(name, shape, bound, terms, evidence, store)
    if kind == "residual":
        attributes.only(set())
        return _read_residual(name, shape, bound, evidence, store)
    if kind == "convex_potential":
        attributes.only(set())
        return _read_potential(name, kind, shape, bound, 0, evidence, store)
    if kind == "implicit_potential":
        attributes.only({"iterations"})
        count = attributes.count("iterations", 1, MOST_TERMS)
        return _read_potential(name, kind, shape, bound, count, evidence, store)
    if kind == "circular_conv2d":
        attributes.only(set())
        return read_circular(name, shape, bound, store)
    require(kind in WITHOUT_WEIGHTS, f"{record.where} is of the unknown kind {quote(kind)}")
    size = read_size(kind, attributes)
    output = output_shape(kind, shape, size, record.where)
    require(math.prod(output) <= LARGEST_LAYER, f"{record.where} makes outputs that are too large")
    return Layer(name, kind, shape, output, bound, size=size)


def _read_slope_residual(
    name: str, shape: tuple[int, ...], bound: float, attributes: Record, store: TensorStore
) -> Layer:
    """X + G·φ(Wx + b)."""
    attributes.only({"function"})
    function = attributes.text("function")
    require(function in SLOPES, f"layer {quote(name)}: unknown activation {quote(function)}")
    weight, bias = store.take(f"{name}.weight", 2), store.take(f"{name}.bias", 1)
    outer = store.take(f"{name}.outer", 2)
    require(
        shape == weight.shape[1:]
        and bias.shape == weight.shape[:1]
        and outer.shape == weight.shape[::-1],
        f"layer {quote(name)}: input {list(shape)}, weight {list(weight.shape)}, bias "
        f"{list(bias.shape)} and outer weight {list(outer.shape)} do not fit",
    )
    kind = "slope_residual"
    return Layer(name, kind, shape, shape, bound, weight, bias, function=function, outer=outer)


def _read_residual(
    name: str,
    shape: tuple[int, ...],
    bound: float,
    evidence: dict[str, Any],
    store: TensorStore,
) -> Layer:
    """x + W₂·minmax(W₁x + b₁) + b₂: both convolutions keep the size of the maps."""
    convolutions: list[Layer] = []
    for number, part in enumerate(("first", "second")):
        claim, hint = _part(evidence, "norms", number), _part(evidence, "parts", number)
        require(
            isinstance(claim, float) and math.isfinite(claim) and isinstance(hint, dict),
            f"layer {quote(name)}: its evidence names no norm of the {part} kernel",
        )
        weight = store.peek(f"{name}.{part}.weight")
        require(
            weight.ndim == 4 and weight.shape[2] == weight.shape[3] and weight.shape[2] % 2 == 1,
            f"layer {quote(name)}: its {part} kernel is not of odd, equal side",
        )
        geometry = {"stride": 1, "padding": weight.shape[2] // 2}
        attributes = Record(geometry, f"layer {quote(name)}")
        given = convolutions[0].output_shape if convolutions else shape
        convolutions.append(
            read_convolution(f"{name}.{part}", given, claim, attributes, hint, store)
        )
    first, second = convolutions
    require(first.output_shape[0] % 2 == 0, f"layer {quote(name)} pairs an odd number of channels")
    require(second.output_shape == shape, f"layer {quote(name)}: the branch does not fit the skip")
    return Layer(name, "residual", shape, shape, bound, branch=(first, second))


def _part(evidence: dict[str, Any], key: str, number: int) -> Any:
    """Entry `number` of a list in the evidence, or None."""
    values = evidence.get(key)
    return values[number] if isinstance(values, list) and number < len(values) else None


def _read_skew(
    name: str,
    shape: tuple[int, ...],
    bound: float,
    terms: int,
    evidence: dict[str, Any],
    store: TensorStore,
) -> Layer:
    """A square kernel that keeps the size of the maps; that it is skew is proved with its norm."""
    side = store.peek(f"{name}.weight").shape[-1]
    geometry = Record({"stride": 1, "padding": side // 2}, f"layer {quote(name)}")
    layer = read_convolution(name, shape, bound, geometry, evidence, store)
    require(layer.output_shape == shape, f"layer {quote(name)} does not keep the shape of its maps")
    norm = evidence.get("weight_norm")
    known = isinstance(norm, float) and math.isfinite(norm)
    require(known, f"layer {quote(name)}: its evidence names no norm of its kernel")
    assert isinstance(norm, float)
    return replace(layer, kind="skew_exponential", size=terms, inner=norm)


def _read_potential(
    name: str,
    kind: str,
    shape: tuple[int, ...],
    bound: float,
    size: int,
    evidence: dict[str, Any],
    store: TensorStore,
) -> Layer:
    """A potential of any shape, one explicit step down or `size` iterations of the implicit one."""
    is_dense = len(shape) == 1
    weight = store.take(f"{name}.weight", 2 if is_dense else 4)
    bias, steps = store.take(f"{name}.bias", 1), store.take(f"{name}.step", 1)
    require(
        shape[0] == weight.shape[1] and bias.shape == weight.shape[:1] and steps.shape == (1,),
        f"layer {quote(name)}: input {list(shape)}, weight {list(weight.shape)}, bias "
        f"{list(bias.shape)} and step {list(steps.shape)} do not fit",
    )
    step = float(steps[0])
    require(step >= 0, f"layer {quote(name)}: the step {step!r} is negative")
    axes = None
    if not is_dense:
        require(
            all(kernel % 2 == 1 for kernel in weight.shape[2:]),
            f"layer {quote(name)}: a kernel of even length does not keep the size of its maps",
        )
        high, wide = (
            Axis(inputs, kernel, 1, kernel // 2)
            for inputs, kernel in zip(shape[1:], weight.shape[2:], strict=True)
        )
        axes = (high, wide)
    return Layer(
        name, kind, shape, shape, bound, weight, bias, axes=axes, step=step, size=size,
        hint=hint_of(evidence),
    )  # fmt: skip
