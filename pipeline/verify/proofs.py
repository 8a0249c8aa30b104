"""The proof that a layer's claim asks for, by its kind."""

from __future__ import annotations

from fractions import Fraction

from pipeline.verify.circular import prove_circular
from pipeline.verify.elementary import SLOPES
from pipeline.verify.implicit import prove_implicit
from pipeline.verify.layers import Layer
from pipeline.verify.norms import Advance, Proof, prove_convolution, prove_dense
from pipeline.verify.potential import prove_potential
from pipeline.verify.residual import prove_residual
from pipeline.verify.skew import prove_skew
from pipeline.verify.slope_residual import prove_slope_residual

OF_KIND = {
    "convex_potential": prove_potential,
    "implicit_potential": prove_implicit,
    "skew_exponential": prove_skew,
    "circular_conv2d": prove_circular,
}


def prove_layer(layer: Layer, advance: Advance) -> Proof:
    """That the claimed bound of a layer is not below its Lipschitz constant.

    Args:
        layer: as read; a kind without weights that is not named here has the constant 1.
        advance: told of progress.
    """
    if layer.branch is not None:
        return prove_residual(layer, advance)
    if layer.kind == "activation":
        most = SLOPES[layer.function][1]
        return Proof(float(most), Fraction(layer.bound) >= most, "its steepest slope")
    if layer.kind == "scale":
        size = abs(layer.factor)
        return Proof(size, layer.bound >= size, "its factor")
    if layer.outer is not None:
        return prove_slope_residual(layer)
    if layer.weight is None:
        return Proof(1.0, layer.bound >= 1, "its constant is 1")
    if layer.kind in OF_KIND:
        return OF_KIND[layer.kind](layer, advance)
    if layer.axes is None:
        return prove_dense(layer.weight, layer.bound)
    return prove_convolution(layer.weight, layer.axes, layer.bound, layer.hint, advance)
