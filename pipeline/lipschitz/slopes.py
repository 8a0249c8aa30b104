"""How steep an elementwise activation can be, and how curved: constants that are never too small.

| φ | slopes in [α, β] | φ'' in [h_L, h_U] |
|---|---|---|
| relu | [0, 1] | – |
| leaky_relu | [0.01, 1] | – |
| softplus | [0, 1] | [0, 1/4] |
| sigmoid | [0, 1/4] | [−√3/18, √3/18] |
| tanh | [0, 1] | [−4√3/9, 4√3/9] |

(CRC, Appendix F.) Constants that are no float64 are rounded away from zero.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from pipeline.lipschitz.rounding import up

LEAK = 0.01
"""The slope of a leaky ReLU on the left, as the float64 number that it is."""


@dataclass(frozen=True)
class Slopes:
    """α ≤ (φ(x) − φ(x'))/(x − x') ≤ β for all x ≠ x', and bounds of φ'' where it exists."""

    least: float
    """α."""
    most: float
    """β."""
    at_zero: float = 0.0
    """Not below |φ(0)|."""
    curvature: tuple[float, float] | None = None
    """(h_L, h_U), h_L ≤ 0 ≤ h_U; None where φ is not differentiable."""

    @property
    def center(self) -> float:
        """c = fl((α + β)/2): any number serves the loop transformation, this one best."""
        return (self.least + self.most) / 2

    @property
    def spread(self) -> float:
        """Not below the Lipschitz constant of ψ(x) = φ(x) − c·x, which is max(β − c, c − α)."""
        if self.least == 0 and self.most / 2 == self.center:
            return self.center  # exact
        return max(up(self.most - self.center), up(self.center - self.least))

    @property
    def bend(self) -> float:
        """h, not below |φ''|.

        Raises:
            ValueError: φ has no second derivative.
        """
        if self.curvature is None:
            raise ValueError("the activation has no second derivative, so no curvature bound")
        return max(-self.curvature[0], self.curvature[1])


_SIGMOID, _TANH = up(up(math.sqrt(3) / 18)), up(up(4 * math.sqrt(3) / 9))
SLOPES = {
    "relu": Slopes(0.0, 1.0),
    "leaky_relu": Slopes(LEAK, 1.0),
    "softplus": Slopes(0.0, 1.0, at_zero=up(math.log(2)), curvature=(0.0, 0.25)),
    "sigmoid": Slopes(0.0, 0.25, at_zero=0.5, curvature=(-_SIGMOID, _SIGMOID)),
    "tanh": Slopes(0.0, 1.0, curvature=(-_TANH, _TANH)),
}


def slopes_of(function: str) -> Slopes:
    """The constants of an activation by name.

    Raises:
        ValueError: an unknown name, with the near miss.
    """
    if not isinstance(function, str) or function not in SLOPES:  # a list from YAML has no hash
        near = difflib.get_close_matches(str(function), SLOPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(SLOPES)}"
        raise ValueError(f"there is no activation {function!r} with known slopes{hint}")
    return SLOPES[function]
