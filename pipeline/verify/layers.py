"""One layer of the certified function, as the independent check knows it.

Notable: it is only made by `reading.read_layer`, which refuses what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.verify.outward import Float64
from pipeline.verify.refusal import quote
from pipeline.verify.torus import Axis, Torus


@dataclass(frozen=True)
class Layer:
    """One layer of the trunk, its shapes and tensors consistent with each other."""

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    bound: float
    """The claimed Lipschitz bound."""
    weight: Float64 | None = None
    """[O, I] (dense) or [O, I, kh, kw] (conv2d)."""
    bias: Float64 | None = None
    """[O]."""
    center: float = 0.0
    """What a shift subtracts."""
    factor: float = 1.0
    """What a scale multiplies by."""
    step: float = 0.0
    """h of a convex potential, τ of an implicit one."""
    inner: float = 0.0
    """The norm of the kernel that the evidence of a truncated exponential names; not trusted."""
    branch: tuple[Layer, Layer] | None = None
    """The two convolutions of a residual block; their claims are hints."""
    size: int = 0
    """The attribute of a layer without weights (`shapes.SIZES`); J of a truncated
    exponential, K of an implicit potential."""
    axes: tuple[Axis, Axis] | None = None
    """Geometry of a convolution."""
    function: str = ""
    """Of an activation."""
    outer: Float64 | None = None
    """G [D, h] of a slope residual."""
    hint: Torus | None = None
    """The torus that the certificate names for its proof; not trusted."""

    def __str__(self) -> str:
        return f"layer {quote(self.name)} ({self.kind})"
