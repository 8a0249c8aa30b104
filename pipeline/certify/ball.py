"""delta': the rounding of the float64 program everywhere in the ball (statement F).

At a float64 point x' of the ball, ‖x' − x‖ ≤ ε, the program computes x̂'_l instead of x'_l. With
e'_0 = 0 (x' is a vector of floats) the recursion of `rounding.py` holds there too,

    e'_{l+1} = (L e'_l + γ_{n+1}(a N'_l + B) + n 2^-1000)(1 + 10^-12),
    N'_l = N_l + e_l + Λ_l ε + e'_l  ≥ ‖x̂'_l‖,

Λ_l the product of the bounds of the layers before l, N_l and e_l of the image itself
(docs/certificate.md §5). The program returns j strictly if m − δ − δ'(ε) > ε K for every other
class.

Notable: every line is affine in ε with non-negative coefficients, and so is δ'. Kept as the pair
(fixed, growing) it needs no guess of ε: the largest sound radius is (m − δ − fixed)/(K + growing).
Bounds of magnitudes beyond 2^990 certify nothing: below it no partial sum, in any order, overflows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.certify.radius import signed_radius
from pipeline.certify.rounding import SLACK, HeadError, LayerError
from pipeline.lipschitz.rounding import mul_up

Floats = NDArray[np.float64]

LARGEST = 2.0**990
"""No magnitude in the ball may exceed it; the largest float64 is near 2^1024."""


@dataclass(frozen=True)
class BallError:
    """What is known of the program at all points at the distance ε: terms [B] in 1 and in ε."""

    fixed: Floats
    """e'_l of the centre: at ε = 0."""
    growing: Floats
    """What e'_l gains for each unit of ε."""
    steepness: float
    """Λ_l, the Lipschitz bound of the layers so far."""
    peak_fixed: Floats
    """The largest magnitude so far at ε = 0, and"""
    peak_growing: Floats
    """what it gains for each unit of ε at the most."""

    @classmethod
    def at_input(cls, images: int) -> BallError:
        """Of x' itself: floats, hence no error."""
        nothing = np.zeros(images)
        return cls(nothing, nothing, 1.0, nothing, nothing)

    def _norm(self, error: Floats, norm: Floats) -> tuple[Floats, Floats]:
        """N'_l as (fixed, growing)."""
        return (norm + error + self.fixed) * SLACK, (self.steepness + self.growing) * SLACK

    def after_exact(self, lipschitz: float) -> BallError:
        """Past a layer with the bound `lipschitz` that rounds nothing."""
        return replace(self, steepness=mul_up(self.steepness, lipschitz))

    def after(self, layer: LayerError, error: Floats, norm: Floats) -> BallError:
        """Past an affine layer, whose input has the error and the norm bound [B]."""
        fixed, growing = self._norm(error, norm)
        sums = (layer.abs_norm * fixed + layer.bias_norm) * SLACK
        slope = layer.abs_norm * growing * SLACK
        inside = (layer.inner_norm * fixed + layer.inner_bias) * SLACK
        gain = layer.inner_norm * growing * SLACK
        return BallError(
            (layer.lipschitz * self.fixed + layer.gamma * sums + layer.underflow) * SLACK,
            (layer.lipschitz * self.growing + layer.gamma * slope) * SLACK,
            mul_up(self.steepness, layer.lipschitz),
            np.maximum.reduce([self.peak_fixed, fixed, sums, inside]),
            np.maximum.reduce([self.peak_growing, growing, slope, gain]),
        )

    def delta(
        self, head: HeadError, error: Floats, norm: Floats, predicted: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """δ'_ji as (fixed, growing), each [B, K]: what two logits can be off at ε in all.

        Args:
            head: its constants.
            error: [B], of the features at the image.
            norm: [B], of the features at the image.
            predicted: [B], j.
        """
        own, distances = predicted[:, None], head.distances[predicted]

        def of_pairs(ball: Floats, logits: Floats, underflow: float) -> Floats:
            rho = (head.gamma * logits + underflow) * SLACK  # [B, K]
            sums = distances * ball[:, None] + rho + np.take_along_axis(rho, own, axis=1)
            return np.asarray(sums * SLACK)

        fixed, growing = self._norm(error, norm)
        return (
            of_pairs(self.fixed, head.row_norms * fixed[:, None] + head.biases, head.underflow),
            of_pairs(self.growing, head.row_norms * growing[:, None], 0.0),
        )

    def radii(
        self,
        head: HeadError,
        error: Floats,
        norm: Floats,
        margins: Floats,
        delta: Floats,
        lipschitz: Floats,
        predicted: NDArray[np.int64],
    ) -> Floats:
        """Radii in which the program ranks the predicted class above each other one: [B, K].

        Args:
            head: its constants.
            error: [B], of the features at the image.
            norm: [B], of the features at the image.
            margins: [B, K], m_ji.
            delta: [B, K], δ_ji.
            lipschitz: [B, K], K_ji.
            predicted: [B], j.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            constant, linear = self.delta(head, error, norm, predicted)
            radii = signed_radius(margins, (delta + constant) * SLACK, (lipschitz + linear) * SLACK)
        return np.asarray(np.minimum(radii, self.reach(head, error, norm)[:, None]))

    def reach(self, head: HeadError, error: Floats, norm: Floats) -> Floats:
        """Distances [B] within which nothing can overflow; −∞ where it could at the image.

        Args:
            head: its constants.
            error: [B], of the features at the image.
            norm: [B], of the features at the image.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            fixed, growing = self._norm(error, norm)
            steepest = head.row_norms.max()
            peak = np.maximum(fixed, steepest * fixed + head.biases.max()) * SLACK
            peak = np.maximum(self.peak_fixed, peak)
            gain = np.maximum(self.peak_growing, np.maximum(growing, steepest * growing) * SLACK)
            room = np.where(gain > 0, (LARGEST - peak) / gain / SLACK, np.inf)
            return np.where(peak < LARGEST, room, -np.inf)
