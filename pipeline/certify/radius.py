"""From margins to certified radii, and the comparison with epsilon (docs/certificate.md §6).

Notable: nothing here can err on the wrong side. Differences and quotients are rounded towards
minus infinity, NaN compares as False, and epsilon is an exact fraction: float64 of 36/255, 72/255
and 108/255 all lie below the rational, so `radius > float(epsilon)` would accept a radius that is
too small.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Epsilon

Floats = NDArray[np.float64]


def signed_radius(margin: Floats, delta: Floats, lipschitz: Floats) -> Floats:
    """A float64 not above (margin − delta) / lipschitz, elementwise; the arguments broadcast.

    Args:
        margin: m_ji = fl(f_j − f_i), the computed logits' difference.
        delta: an upper bound of |m_ji − (exact f_j − f_i)|.
        lipschitz: K_ji ≥ 0, an upper bound of the Lipschitz constant of f_j − f_i.

    Returns:
        down(down(margin − delta) / lipschitz). Where lipschitz is 0 (the margin is constant):
        +inf for a positive numerator, −inf otherwise. NaN where an argument is not finite.
    """
    finite = np.isfinite(margin) & np.isfinite(delta) & np.isfinite(lipschitz)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        numerator = np.nextafter(margin - delta, -np.inf)
        quotient = np.nextafter(numerator / lipschitz, -np.inf)
    constant = np.where(numerator > 0, np.inf, -np.inf)
    return np.where(finite, np.where(lipschitz > 0, quotient, constant), np.nan)


def float_below(exact: Fraction) -> float:
    """The largest float64 that is not above `exact`."""
    nearest = float(exact)
    return nearest if Fraction(nearest) <= exact else math.nextafter(nearest, -math.inf)


def exceeds(radius: Floats, epsilon: Epsilon) -> NDArray[np.bool_]:
    """Elementwise, whether `radius` is strictly greater than the rational epsilon; NaN is not.

    A float64 is greater than a rational exactly when it is greater than the largest float64 not
    above the rational, so this comparison is the comparison of fractions.
    """
    return np.asarray(radius > float_below(epsilon.exact))
