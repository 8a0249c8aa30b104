"""Distances between the head's rows, in difference form, and the exact comparison with a claim.

Notable: the Gram form ‖a‖² + ‖b‖² − 2 a·b cancels and falls below the distance of near-equal rows;
nothing here uses it. The table of all pairs is an enclosure [lower, upper]; a single claimed
constant is compared in rational arithmetic, after a quick test that is right whenever it accepts.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from pipeline.verify.outward import GROW, SHRINK, Float64, ceil_float, gamma, square_sum_upper


class HeadDistances:
    """‖w_j − w_i‖ for all pairs of rows of `weight` [K, d].

    Attributes:
        upper: [K, K], not below the distance.
        lower: [K, K], not above it.
    """

    def __init__(self, weight: Float64) -> None:
        self._weight = weight
        self._quick: dict[tuple[int, int], Fraction] = {}
        classes, features = weight.shape
        squares = np.zeros((classes, classes))
        for row in range(classes - 1):
            differences = weight[row + 1 :] - weight[row]  # each off by u relatively
            squares[row, row + 1 :] = np.einsum("ij,ij->i", differences, differences)
        squares += squares.T
        upper = np.sqrt(square_sum_upper(squares, features)) * GROW
        # Differences of float32 numbers do not underflow: the sum is 0 for equal rows only.
        self.upper = np.where(squares > 0, upper, 0.0)
        self.lower = self.upper * (1 - ceil_float(8 * gamma(features + 32)))

    def steepest(self, factor: float) -> Float64:
        """[K, K], not below the Lipschitz constants of the margins, `factor` that of the trunk."""
        return self.upper * factor * GROW

    def flattest(self, factor: float) -> Float64:
        """[K, K], not above any constant that `is_at_least` accepts."""
        return self.lower * factor * SHRINK

    def is_at_least(self, claim: float, factor: float, first: int, second: int) -> bool:
        """Whether claim ≥ factor · ‖w_first − w_second‖, exactly."""
        pair = (min(first, second), max(first, second))
        claimed, times = Fraction(claim), Fraction(factor)
        if pair not in self._quick:
            self._quick[pair] = Fraction(self._quick_upper(*pair))
        if claimed >= times * self._quick[pair]:
            return True
        return claimed >= 0 and claimed**2 >= times**2 * self._exact_square(*pair)

    def _quick_upper(self, first: int, second: int) -> float:
        """An upper bound that is a few units in the last place above the distance.

        Differences, squares and the correctly rounded sum lose at most 4u of the square, the square
        root u more.
        """
        differences = self._weight[first] - self._weight[second]
        return math.sqrt(math.fsum(np.square(differences).tolist())) * (1 + 2.0**-50)

    def _exact_square(self, first: int, second: int) -> Fraction:
        pairs = zip(self._weight[first].tolist(), self._weight[second].tolist(), strict=True)
        return sum(((Fraction(a) - Fraction(b)) ** 2 for a, b in pairs), Fraction(0))
