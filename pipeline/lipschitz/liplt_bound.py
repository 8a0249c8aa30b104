"""LipLT certified (Fazlyab et al. 2023, Theorem 3): bounds that hold in spite of rounding.

    x_{k+1} = φ_k(W_k x_k + b_k);   logits = W_L x_L + b_L;   the formula: `liplt_estimate.py`

Notable:
- A product W_k⋯W_j is a matrix, formed explicitly with its rounding bounded, and its norm is proved
  by Cholesky. (Tori do not compose: zero padding between two layers is not circular.)
- Where that matrix is too large, a single convolution is bounded on a torus, and a product by
  ‖W_k⋯W_{i+1}‖·‖W_i⋯W_j‖, the best i, of parts that are proved ("split"): looser, never wrong.
- Any centre c of the slopes is valid, so c is one float64 and the spread is rounded up
  (`slopes.py`). Sums and products of norms are rounded up, term by term.
- A last slack of 1e-9 lets another program, whose roundings differ, prove "K ≤ what is published".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.exact_map import (
    ExactMap,
    chain_error,
    explicit_product,
    rows_through,
)
from pipeline.lipschitz.pairwise import pairwise_distance_upper
from pipeline.lipschitz.parallel import map_in_order
from pipeline.lipschitz.rounding import Float64, Value, add_up, mul_up, up
from pipeline.lipschitz.slopes import Slopes
from pipeline.lipschitz.wide import wide_norm_bound

MOST_ENTRIES = 1 << 27
"""Of an explicit product: 1 GiB."""
MOST_ROWS = 4096
"""Of an explicit product, on its shorter side."""
TABLE_SLACK = 1e-9


@dataclass(frozen=True)
class LipLTBound:
    """What is proved of a network."""

    products: dict[tuple[int, int], NormBound]
    """(k, j), j ≤ k: of ‖W_k⋯W_j‖; in a residual network see `residual_liplt_bound`."""
    constants: tuple[float, ...]
    """m_0 … m_{L−1}: of x ↦ W_k x_k."""
    margins: Float64
    """[K, K]: of f_j − f_i; zero on the diagonal."""
    logits: Float64
    """[K]: of f_j."""


def liplt_bound(
    maps: Sequence[ExactMap],
    slopes: Sequence[Slopes],
    rows: Float64,
    proved: dict[tuple[int, int], NormBound] | None = None,
) -> LipLTBound:
    """Bound every margin of a network.

    Args:
        maps: W_0 … W_{L−1}.
        slopes: of φ_0 … φ_{L−1}.
        rows: W_L, [K, d], float32 numbers in float64.
        proved: what `prove_product` says of `products_to_prove`; proved here without it.
    """
    if proved is None:
        proved = {key: prove_product(maps, key) for key in products_to_prove(maps)}
    products = with_splits(proved, len(maps))
    constants = recursion(products, slopes)
    through = [(matrix.numpy(), error.numpy()) for matrix, error in rows_through(maps, rows)]
    distances, lengths = [], []
    for matrix, error in through:
        apart = pairwise_distance_upper(matrix)
        apart = add_up(apart, error[:, None] + error * (1 + 2.0**-50))
        np.fill_diagonal(apart, 0.0)
        distances.append(apart)
        lengths.append(add_up(np.sqrt((matrix * matrix).sum(1)) * (1 + 1e-9), error))
    slack = up(1 + TABLE_SLACK)
    margins = mul_up(head_constants(distances, constants, slopes), slack)
    np.fill_diagonal(margins, 0.0)  # outward rounding makes it the least number above
    return LipLTBound(
        products,
        tuple(constants),
        margins,
        mul_up(head_constants(lengths, constants, slopes), slack),
    )


def products_to_prove(maps: Sequence[ExactMap]) -> list[tuple[int, int]]:
    """(last, first) of every product that is proved by itself, shorter ones first."""
    return [
        key
        for key in _all_products(len(maps))
        if key[0] == key[1] or _fits(maps[key[1] : key[0] + 1])
    ]


def prove_product(maps: Sequence[ExactMap], key: tuple[int, int]) -> NormBound:
    """‖W_last⋯W_first‖ for one of `products_to_prove`."""
    last, first = key
    chain = maps[first : last + 1]
    return _explicit(chain) if _fits(chain) else chain[0].norm_bound()


def with_splits(
    proved: dict[tuple[int, int], NormBound], count: int
) -> dict[tuple[int, int], NormBound]:
    """‖W_k⋯W_j‖ for all j ≤ k < `count`: the proved ones, and the best split of each other."""
    found: dict[tuple[int, int], NormBound] = {}
    for last, first in _all_products(count):
        known = proved.get((last, first))
        found[last, first] = known if known is not None else _split(found, last, first)
    return found


def _all_products(count: int) -> list[tuple[int, int]]:
    return [(first + more, first) for more in range(count) for first in range(count - more)]


def recursion(products: dict[tuple[int, int], NormBound], slopes: Sequence[Slopes]) -> list[float]:
    """m_0 … m_{L−1} from the norms, rounded up."""
    constants: list[float] = []
    for k in range(len(slopes)):
        row = [products[k, j].value for j in range(k + 1)]
        constants.append(_theorem3(row, constants, slopes))
    return constants


def head_constants(
    norms: Sequence[Value], constants: Sequence[float], slopes: Sequence[Slopes]
) -> Value:
    """The last step of the recursion for norms of W_L⋯W_j, j = 0 … L, of any one shape."""
    return _theorem3(norms, constants, slopes)


def _theorem3(row: Sequence[Value], constants: Sequence[float], slopes: Sequence[Slopes]) -> Value:
    """C(0,k)·row[0] + Σ_{j<k} s_j·C(j+1,k)·row[j+1]·m_j, k = len(row) − 1, rounded up."""
    k = len(row) - 1
    total = mul_up(row[0], _centers(slopes, 0, k))
    for j in range(k):
        factor = mul_up(slopes[j].spread, _centers(slopes, j + 1, k), constants[j])
        total = add_up(total, mul_up(row[j + 1], factor))
    return total


def _centers(slopes: Sequence[Slopes], first: int, last: int) -> float:
    """Upper bound of C(first, last); exactly 1 for none."""
    return mul_up(1.0, *(slope.center for slope in slopes[first:last]))


def _fits(chain: Sequence[ExactMap]) -> bool:
    short, long = sorted((chain[-1].outputs, chain[0].inputs))
    return short <= MOST_ROWS and short * long <= MOST_ENTRIES


def _explicit(chain: Sequence[ExactMap]) -> NormBound:
    error = chain_error(chain)
    [bound] = map_in_order(lambda maps: wide_norm_bound(explicit_product(maps), error), [chain])
    return bound


def _split(found: dict[tuple[int, int], NormBound], last: int, first: int) -> NormBound:
    """The best product of two parts."""
    values = {
        at: mul_up(found[last, at + 1].value, found[at, first].value) for at in range(first, last)
    }
    best = min(values, key=lambda at: values[at])
    return NormBound(values[best], "split", {"after": best})
