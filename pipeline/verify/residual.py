"""Residual blocks, y = x + W₂·minmax(W₁x + b₁) + b₂: their constant, and their arithmetic.

The constant is at most 1 + ‖W₁‖·‖W₂‖, since MinMax is 1-Lipschitz. The evidence of a certificate
names a bound of either norm; both are proved here, and the sum is compared with the claim exactly.

Rounding. With a_i ≥ ‖|W_i|‖, B_i ≥ ‖b_i‖ and n_i the lengths of the sums, the computed output is at
most γ_{n₁+n₂+3}·((1 + a₂a₁)·‖x‖ + a₂B₁ + B₂) from the exact one at the same x: the first product
errs by γ_{n₁+1}(a₁‖x‖ + B₁), carried on by a₂; the second by γ_{n₂+1}(a₂‖r̂‖ + B₂) with
‖r̂‖ ≤ (1 + γ_{n₁+1})(a₁‖x‖ + B₁); the sum by u; and γ_i + γ_j + γ_iγ_j ≤ γ_{i+j}.
"""

from __future__ import annotations

from fractions import Fraction

from pipeline.verify.layers import Layer
from pipeline.verify.norms import Advance, Proof, prove_convolution
from pipeline.verify.outward import GROW, ceil_float


def prove_residual(layer: Layer, advance: Advance) -> Proof:
    """That the claim of a residual block is not below 1 + ‖W₁‖·‖W₂‖."""
    assert layer.branch is not None
    bounds, how, factored = [], [], False
    for part in layer.branch:
        assert part.weight is not None and part.axes is not None
        proof = prove_convolution(part.weight, part.axes, part.bound, part.hint, advance)
        if not proof.holds:
            return Proof(float("inf"), False, f"of {part.name} {proof.bound!r}, {proof.how}")
        bounds.append(Fraction(part.bound))
        how.append(proof.how)
        factored |= proof.factored
    constant = 1 + bounds[0] * bounds[1]
    holds = constant <= Fraction(layer.bound)
    return Proof(ceil_float(constant), holds, " and ".join(how), factored)


def residual_error(
    layer: Layer, absolute: tuple[float, float], bias: tuple[float, float]
) -> tuple[int, float, float]:
    """(n₁ + n₂ + 2, 1 + a₂a₁, a₂B₁ + B₂): what the recursion of `forward` takes.

    Args:
        layer: of this kind.
        absolute: a₁ and a₂.
        bias: B₁ and B₂.
    """
    assert layer.branch is not None
    sizes = [part.weight[0].size for part in layer.branch if part.weight is not None]
    return (
        sum(sizes) + 2,
        (1 + absolute[0] * absolute[1] * GROW) * GROW,
        (absolute[1] * bias[0] * GROW + bias[1]) * GROW,
    )
