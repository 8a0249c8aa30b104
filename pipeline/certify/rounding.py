"""delta: how far a computed margin can be from the exact one (docs/certificate.md §5).

Notable:
- The centre of the ball is the exact rational v/255; the program starts from its nearest float64.
  That first error and every rounding of the network are carried forward as an l2 norm: each layer
  multiplies what it is given by its Lipschitz bound and adds its own rounding.
- A dot product of n terms in *any* order is within γ_n Σ|a·b| of the truth (Higham, Accuracy and
  Stability of Numerical Algorithms, 2nd ed., §3.1), so this holds for any thread count and
  device that uses conventional matrix products.
- Each step is multiplied by 1 + 1e-12: room for the handful of roundings of the step itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.layers.exported import Rounding
from pipeline.lipschitz.rounding import UNDERFLOW, UNIT, gamma, up

Floats = NDArray[np.float64]

SLACK = 1 + 1e-12


def norm_upper(x: Tensor) -> Floats:
    """Upper bounds of the l2 norms of the rows: [B, ...] float64 -> [B].

    A norm that overflows is returned as infinite, one with a NaN as NaN; neither certifies.
    """
    flat = x.flatten(1)
    squares = (flat * flat).sum(1).cpu().numpy()
    count = flat.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(
            np.sqrt(squares * up(1 + gamma(count + 3)) + count * UNDERFLOW) * (1 + 2.0**-50)
        )


@dataclass(frozen=True)
class LayerError:
    """The constants of one affine layer in e ↦ L e + γ(a N + B) + n 2^-1000."""

    lipschitz: float
    """L, the certified bound of the layer."""
    gamma: float
    """γ_{n+1}: n products and the bias, in any order."""
    abs_norm: float
    """a, an upper bound of ‖|W|‖."""
    bias_norm: float
    """B, an upper bound of ‖b‖ over all positions."""
    underflow: float
    """n 2^-1000."""
    inner_norm: float = 0.0
    """Size of the numbers inside, where it is beyond a N + B: `inner_norm`·N + `inner_bias`."""
    inner_bias: float = 0.0

    @classmethod
    def of(cls, lipschitz: float, rounding: Rounding) -> LayerError:
        """The constants for a layer with bound `lipschitz`."""
        return cls(
            lipschitz=lipschitz,
            gamma=gamma(rounding.fan_in + 1),
            abs_norm=rounding.abs_norm,
            bias_norm=rounding.bias_norm,
            underflow=rounding.fan_in * UNDERFLOW,
            inner_norm=rounding.inner_norm,
            inner_bias=rounding.inner_bias,
        )

    def after(self, error: Floats, norm: Floats) -> Floats:
        """Error of the output, from the error and the norm bound of the input, each [B]."""
        own = self.gamma * (self.abs_norm * norm + self.bias_norm) + self.underflow
        return (self.lipschitz * error + own) * SLACK


def input_error(norm: Floats) -> Floats:
    """Bound of ‖fl(v/255) − v/255‖ from the norm bound of fl(v/255), [B] -> [B]."""
    return UNIT * norm * (1 + 2 * UNIT) * SLACK


@dataclass(frozen=True)
class HeadError:
    """The head's part of delta."""

    gamma: float
    """γ_{d+1} for d features."""
    row_norms: Floats
    """[K], upper bounds of ‖w_j‖."""
    biases: Floats
    """[K], |b_j|."""
    distances: Floats
    """[K, K], upper bounds D_ji of ‖w_j − w_i‖."""
    underflow: float
    """d 2^-1000."""

    @classmethod
    def of(
        cls, weight: NDArray[np.floating], bias: NDArray[np.floating], distances: Floats
    ) -> HeadError:
        """The constants of a head with rows `weight` [K, d] and `bias` [K]."""
        features = weight.shape[1]
        return cls(
            gamma=gamma(features + 1),
            row_norms=norm_upper(torch.from_numpy(np.asarray(weight, dtype=np.float64))),
            biases=np.abs(np.asarray(bias, dtype=np.float64)),
            distances=distances,
            underflow=features * UNDERFLOW,
        )

    def delta(
        self, error: Floats, norm: Floats, margins: Floats, predicted: NDArray[np.int64]
    ) -> Floats:
        """Upper bounds of |m_ji − (exact f_j − f_i)| for the predicted class j and all classes i.

        Args:
            error: [B], the features' distance from the exact features.
            norm: [B], upper bounds of the computed features' norms.
            margins: [B, K], m_ji = fl(f_j − f_i).
            predicted: [B], j.

        Returns:
            [B, K]; the column of the predicted class itself means nothing.
        """
        rho = self.gamma * (self.row_norms * norm[:, None] + self.biases) + self.underflow  # [B, K]
        rho_predicted = np.take_along_axis(rho, predicted[:, None], axis=1)  # [B, 1]
        total = (
            self.distances[predicted] * error[:, None]
            + rho
            + rho_predicted
            + UNIT * np.abs(margins)
        )
        return np.asarray(total * SLACK)


def scale_up(distances: Floats, factor: float) -> Floats:
    """Upper bounds of `factor` × `distances`; exactly 0 where either is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = np.nextafter(distances * factor, math.inf)
    return np.where((distances == 0) | (factor == 0), 0.0, product)
