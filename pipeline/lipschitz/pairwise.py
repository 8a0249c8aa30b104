"""Distances of the rows of a head: ‖w_j − w_i‖ for every pair of classes, rounded up.

Notable: in difference form. The usual Gram form ‖w_j‖² + ‖w_i‖² − 2·w_j·w_i is one matrix product,
and falls below the truth for near-equal rows (cancellation); the difference form has a relative
error only, at any distance (docs/certificate.md §4).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.lipschitz.arrays import exact_float64
from pipeline.lipschitz.parallel import map_in_order
from pipeline.lipschitz.rounding import (
    UNIT,
    Float64,
    mul_up,
    scaled_back,
    scaled_to_one,
    silent,
    sqrt_upper,
    squares_upper,
    up,
)

TILE_BYTES = 2**20
"""Differences are formed in tiles that stay in the cache."""
NEAR = 2.0**-900
"""Squared distances below this may be nothing but what underflow is charged."""


@silent
def pairwise_distance_upper(rows: Any) -> Float64:
    """Upper bounds of ‖w_j − w_i‖: rows [K, d] of any float dtype -> [K, K] float64.

    Symmetric; exactly 0 on the diagonal and for equal rows; inf for every other pair if any entry
    is NaN or infinite.
    """
    matrix = exact_float64(rows, ("K", "d"))
    count = len(matrix)
    if not np.isfinite(matrix).all():
        return np.where(np.eye(count, dtype=bool), 0.0, np.inf)
    if not matrix.any():
        return np.zeros((count, count))
    scaled, exponent = scaled_to_one(matrix)  # no square of a difference overflows
    below = map_in_order(lambda row: _distances_before(matrix, scaled, row), range(count))
    distances = np.zeros((count, count))
    for row, values in enumerate(below):
        distances[row, :row] = distances[:row, row] = values
    return np.where(distances > 0, scaled_back(distances, exponent), 0.0)


@silent
def _distances_before(matrix: Float64, scaled: Float64, row: int) -> Float64:
    """Upper bounds of the distances of `row` of `scaled` to the rows before it: [row]."""
    tile = max(1, TILE_BYTES // scaled[0].nbytes)
    squares = np.zeros(row)
    for start in range(0, row, tile):
        differences = scaled[start : min(start + tile, row)] - scaled[row]
        squares[start : start + tile] = squares_upper(differences)
    # Each difference is one rounded operation: relative error u. `squares_upper` is positive even
    # for equal rows, because their squares might have underflowed; the rows themselves decide.
    distances = mul_up(sqrt_upper(squares), up(1 + UNIT))
    for other in np.flatnonzero(squares < NEAR):
        if np.array_equal(matrix[other], matrix[row]):
            distances[other] = 0.0
    return distances
