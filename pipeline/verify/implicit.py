"""Implicit potentials: K times y ← (y − τ·Wᵀmax(0, Wy + b)) + τ·(x − y), beginning at y = x.

Theorem. Between two inputs an iteration takes Δy to ((1 − τ)I − τ·WᵀDW)Δy + τΔx with a diagonal
0 ≤ D ≤ I. If τ·(2 + ‖W‖²) ≤ 2 the matrix has norm at most 1 − τ, so ‖Δy‖ ≤ ‖Δx‖ stays true: the
constant is 1, for every K. This is proved by ‖W‖ ≤ √(2/τ − 2); nothing else is accepted.

Rounding. With a ≥ ‖|W|‖, B ≥ ‖b‖ and n₁, n₂ the lengths of the two sums, an iteration makes no
number larger than (1 + τ + τa²)·|y| + τ|x| + τaB by at most n₁ + n₂ + 6 roundings one after the
other, and max(0, ·) moves no further than its input. So after K of them the error is at most
γ_{K(n₁+n₂+6)}·(a_K·‖x‖ + B_K), a_K and B_K from the recursion with a₀ = 1 and B₀ = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from pipeline.verify.layers import Layer
from pipeline.verify.norms import Advance, Proof, prove_convolution, prove_dense
from pipeline.verify.outward import GROW, Float64
from pipeline.verify.potential import TINY, evaluate_potential, root_floor


def prove_implicit(layer: Layer, advance: Advance) -> Proof:
    """That the layer is 1-Lipschitz, and claims no less."""
    assert layer.weight is not None
    if not layer.bound >= 1:
        return Proof(1.0, False, "no such layer is proved to contract")
    if layer.step == 0:
        return Proof(1.0, True, "its step is 0")
    square = 2 / Fraction(layer.step) - 2
    if square <= 0:
        return Proof(float("inf"), False, f"the step {layer.step:.6g} is too long for any weight")
    target = root_floor(square)
    if layer.axes is None:
        proof = prove_dense(layer.weight, target)
    else:
        proof = prove_convolution(layer.weight, layer.axes, target, layer.hint, advance)
    bound = 1.0 if proof.holds else float("inf")
    return Proof(bound, proof.holds, f"step {layer.step:.6g}, {proof.how}")


def evaluate_implicit(layer: Layer, x: Float64, affine: Callable[[Float64], Float64]) -> Float64:
    """[B, ...] -> [B, ...]; `affine` computes Wy + b."""
    whole, y = replace(layer, step=1.0), x
    for _ in range(layer.size):
        down = evaluate_potential(whole, np.zeros_like(y), affine(y))  # −Wᵀmax(0, Wy + b)
        y = y + layer.step * ((x - y) + down)
    return y


def implicit_error(
    layer: Layer, absolute: float, bias: float
) -> tuple[tuple[int, float, float], tuple[float, float]]:
    """(n, a, B) and the size of numbers inside, as the recursion of `rounding` takes them.

    Args:
        layer: of this kind.
        absolute: a.
        bias: B.
    """
    assert layer.weight is not None
    shift = (bias + TINY) * GROW
    grows = (1 + (layer.step + layer.step * absolute**2 * GROW) * GROW) * GROW
    total, offset = 1.0, 0.0
    for _ in range(layer.size):
        total = (grows * total * GROW + layer.step) * GROW
        offset = (grows * offset + layer.step * absolute * shift * GROW) * GROW
    fan_in = layer.size * (layer.weight[0].size + layer.weight[:, 0].size + 6)
    inside = (1 + absolute) * GROW
    inner = inside**2 * total * GROW, (inside**2 * offset + inside * shift) * GROW
    return (fan_in, total, offset), inner
