"""LipLT of residual networks proved again (Fazlyab et al. 2023, (14) and (16)).

    y_k = W_k x_k + b_k,  x_{k+1} = H_k x_k + G_k φ_k(y_k),  Ĥ_k = H_k + c_k G_k W_k
    m_k = ‖W_k Ĥ_{k−1}⋯Ĥ_0‖ + Σ_{j<k} s_j ‖W_k Ĥ_{k−1}⋯Ĥ_{j+1} G_j‖ m_j

Notable: the certificate claims a number for every norm; (last k, first 0) begins at the input and
(k, j + 1) behind φ_j. Every product is formed here with its error carried along, and its claim
proved by Gram iteration; the recursion is done in fractions. A dense layer with an activation is a
stage with H = 0 and G = I; a slope residual is one with H = I.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.verify.elementary import SLOPES
from pipeline.verify.gram import spectral_upper_bounds
from pipeline.verify.head import HeadDistances
from pipeline.verify.layers import Layer
from pipeline.verify.liplt import LipLTDistances
from pipeline.verify.outward import GROW, UNIT, Float64, ceil_float, gamma, norm_upper
from pipeline.verify.refusal import require

MOST_STAGES = 100
LOST = 2.0**-900
"""More than underflow takes from a product here."""


@dataclass(frozen=True)
class Held:
    """A computed matrix and how far (2-norm) the exact one may be."""

    matrix: Float64
    error: float = 0.0

    @property
    def size(self) -> float:
        """Not below the Frobenius norm."""
        return float(norm_upper(self.matrix, (0, 1)))

    def times(self, other: Held) -> Held:
        """The product."""
        off = self.error * (other.size + other.error) + self.size * other.error
        rounding = ceil_float(gamma(self.matrix.shape[1] + 1)) * self.size * other.size
        return Held(self.matrix @ other.matrix, (off + rounding + LOST) * GROW * GROW)


@dataclass(frozen=True)
class Stage:
    """W, G and whether H is the identity; centre and spread of the slopes."""

    inner: Held
    outer: Held | None
    center: Fraction
    spread: Fraction

    def behind(self, moving: Held) -> Held:
        """`moving` times G."""
        return moving if self.outer is None else moving.times(self.outer)

    def looped(self) -> Held:
        """Ĥ."""
        center = float(self.center)  # exact: `_slopes` takes a float64 number
        product = self.inner if self.outer is None else self.outer.times(self.inner)
        matrix = center * product.matrix
        if self.outer is not None:
            matrix = matrix + np.eye(len(matrix))
        rounding = 4 * float(UNIT) * (float(norm_upper(matrix, (0, 1))) + product.size)
        return Held(matrix, (center * product.error + rounding + LOST) * GROW)


class ResidualDistances(LipLTDistances):
    """The head's rows, and the constants that (16) proves for their margins.

    Raises:
        Refusal: a layer that (14) has no place for, or a claim that cannot be proved.
    """

    def __init__(
        self,
        weight: Float64,
        layers: list[Layer],
        claims: dict[tuple[int, int], float],
        advance: Callable[[int, int], None],
    ) -> None:
        HeadDistances.__init__(self, weight)
        stages = _read_stages(layers)
        looped = [stage.looped() for stage in stages]
        _prove(stages, looped, claims, advance)
        constants: list[Fraction] = []
        for k in range(len(stages)):
            total = Fraction(claims[k, 0])
            for j in range(k):
                total += stages[j].spread * Fraction(claims[k, j + 1]) * constants[j]
            constants.append(Fraction(ceil_float(total)))
        self.table = _table(stages, looped, constants, weight)


def is_residual(layers: list[Layer]) -> bool:
    """Whether one of them is a slope residual."""
    return any(layer.outer is not None for layer in layers)


def _read_stages(layers: list[Layer]) -> list[Stage]:
    stages: list[Stage] = []
    waiting: Layer | None = None
    for layer in layers:
        if layer.kind == "activation" and waiting is not None:
            assert waiting.weight is not None
            stages.append(Stage(Held(waiting.weight), None, *_slopes(layer.function)))
            waiting = None
            continue
        require(waiting is None, f"{layer} stands where an activation should")
        if layer.outer is not None:
            assert layer.weight is not None
            inner, outer = Held(layer.weight), Held(layer.outer)
            stages.append(Stage(inner, outer, *_slopes(layer.function)))
        elif layer.kind == "dense":
            waiting = layer
        else:
            require(layer.kind == "flatten", f"{layer} is none that residual LipLT knows")
    require(waiting is None and bool(stages), "the trunk does not end with an activation")
    require(len(stages) <= MOST_STAGES, f"{len(stages)} stages are more than are checked here")
    return stages


def _slopes(function: str) -> tuple[Fraction, Fraction]:
    """Centre, as a float64 number, and the spread about it."""
    least, most = SLOPES[function]
    center = Fraction(float((least + most) / 2))
    return center, max(most - center, center - least)


def _prove(
    stages: list[Stage],
    looped: list[Held],
    claims: dict[tuple[int, int], float],
    advance: Callable[[int, int], None],
) -> None:
    count = len(stages)
    expected = {(k, j) for k in range(count) for j in range(k + 1)}
    require(set(claims) == expected, "the products of LipLT are not all claimed, once each")
    done = 0
    for k, stage in enumerate(stages):
        moving = stage.inner
        for j in reversed(range(-1, k)):
            part = moving if j < 0 else stages[j].behind(moving)
            claim = claims[k, j + 1]
            require(
                _holds(part, claim),
                f"the product from {j + 1} to {k} claims the bound {claim!r}, which cannot be "
                "proved",
            )
            if j >= 0:
                moving = moving.times(looped[j])
            done += 1
            advance(done, len(expected))


def _holds(part: Held, claim: float) -> bool:
    if not part.matrix.any():
        return claim >= part.error
    target = (claim - part.error) * (1 - 2.0**-47)
    tall = part.matrix if part.matrix.shape[0] >= part.matrix.shape[1] else part.matrix.T
    return bool(spectral_upper_bounds(np.ascontiguousarray(tall)[None, None], target)[0] <= target)


def _table(
    stages: list[Stage], looped: list[Held], constants: list[Fraction], weight: Float64
) -> Float64:
    """(16) with every w_j − w_i for W_L."""
    table = np.zeros((len(weight), len(weight)))
    moving = Held(weight)
    for number in reversed(range(-1, len(stages))):
        part = moving if number < 0 else stages[number].behind(moving)
        factor = 1.0
        if number >= 0:
            factor = ceil_float(stages[number].spread * constants[number])
            moving = moving.times(looped[number])
        apart = HeadDistances(part.matrix).upper + 2 * part.error * GROW
        table = (table + apart * factor * GROW) * GROW
    np.fill_diagonal(table, 0.0)
    return table
