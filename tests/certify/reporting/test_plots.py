"""Where the axis of a plot ends."""

import numpy as np
import pytest

from pipeline.certify.reporting.plots import _right_end
from pipeline.types import Epsilon


@pytest.mark.parametrize(
    ("radii", "epsilons", "end"),
    [
        ([0.1, 0.4], [], 0.42),
        ([0.1, 0.4], ["1.0"], 0.42),
        ([0.0, 0.0], ["0.5"], 0.55),
        ([0.2, np.inf], ["0.5"], 0.55),
        ([0.2, np.inf], [], 0.22),
        ([0.0, np.inf], [], 1.0),
        ([0.0], [], 1.0),
    ],
)
def test_it_ends_somewhere_whatever_the_radii(radii, epsilons, end) -> None:
    assert _right_end(np.array(radii), [Epsilon.parse(e) for e in epsilons]) == pytest.approx(end)
