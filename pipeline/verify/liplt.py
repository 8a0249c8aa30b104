"""LipLT's constants proved again (Fazlyab et al. 2023, Theorem 3): products, recursion, head.

    x_{k+1} = φ_k(W_k x_k + b_k), slopes of φ_k in [α_k, β_k];  c = (α + β)/2, s = (β − α)/2
    m_k = C(0,k)·‖W_k⋯W_0‖ + Σ_{j<k} s_j·C(j+1,k)·‖W_k⋯W_{j+1}‖·m_j,   C(a,k) = c_a⋯c_{k−1}

Notable: the certificate claims a number for every ‖W_k⋯W_j‖. A product that can be formed is formed
here tap by tap and its claim proved by Gram iteration; a single convolution may be proved on a
torus; any claim may rest on two claims that are proved, ‖AB‖ ≤ ‖A‖‖B‖. The recursion is done in
rational arithmetic. Nothing else of the certificate's evidence is used.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from pipeline.verify.elementary import SLOPES
from pipeline.verify.gram import spectral_upper_bounds
from pipeline.verify.head import HeadDistances
from pipeline.verify.layers import Layer
from pipeline.verify.norms import prove_convolution, prove_dense
from pipeline.verify.outward import GROW, Float64, ceil_float, gamma, norm_upper
from pipeline.verify.refusal import quote, require
from pipeline.verify.rounding import abs_norm_upper
from pipeline.verify.strict_json import Record

MOST_ENTRIES = 2**27
MOST_ROWS = 4096
MOST_MAPS = 100
SLICE = 32
SMALLEST = 2.0**-900
"""More than underflow takes from a chain whose absolute norms are at least 1."""


class LipLTDistances(HeadDistances):
    """The head's rows, and the constants K_ji that LipLT proves for their margins.

    Attributes:
        table: [K, K], not below the Lipschitz constants of f_j − f_i.
    """

    def __init__(
        self,
        weight: Float64,
        layers: list[Layer],
        claims: dict[tuple[int, int], float],
        advance: Callable[[int, int], None],
    ) -> None:
        super().__init__(weight)
        maps, slopes = read_stages(layers)
        _prove(maps, claims, advance)
        constants = _recursion(claims, slopes)
        self.table = _table(maps, slopes, constants, weight)

    def is_at_least(self, claim: float, factor: float, first: int, second: int) -> bool:
        """Whether the claim is not below LipLT's constant, or the product's."""
        return claim >= self.table[first, second] or super().is_at_least(
            claim, factor, first, second
        )

    def steepest(self, factor: float) -> Float64:
        """[K, K], proved constants of the margins."""
        return np.minimum(self.table, super().steepest(factor))

    def flattest(self, factor: float) -> Float64:
        """[K, K], what no published constant can be far below: 1e-8 of room."""
        return np.minimum(self.table, super().flattest(factor)) * (1 - 1e-8)


def read_claims(margins: Record) -> dict[tuple[int, int], float]:
    """(last, first) -> claimed bound of ‖W_last⋯W_first‖.

    Raises:
        Refusal: a record that is not of that form, or a product that is claimed twice.
    """
    margins.only({"method", "products"})
    claims: dict[tuple[int, int], float] = {}
    for values in margins.items("products"):
        require(isinstance(values, dict), "a product of LipLT is not an object")
        record = Record(values, "a product of LipLT")
        record.only({"first", "last", "bound", "method", "evidence"})
        key = record.count("last", 0, MOST_MAPS), record.count("first", 0, MOST_MAPS)
        require(key not in claims, f"the product of maps {key[1]} to {key[0]} is claimed twice")
        claims[key] = record.number("bound")
        require(claims[key] >= 0, f"the product of maps {key[1]} to {key[0]} has a negative bound")
    return claims


def read_stages(layers: list[Layer]) -> tuple[list[Layer], list[tuple[Fraction, Fraction]]]:
    """The affine layers, and centre and spread of the activation behind each.

    Raises:
        Refusal: a layer that the theorem does not know, or one in a wrong place.
    """
    maps: list[Layer] = []
    slopes: list[tuple[Fraction, Fraction]] = []
    for layer in layers:
        if layer.weight is not None:
            require(len(maps) == len(slopes), f"{layer} has no activation before it")
            maps.append(layer)
        elif layer.kind == "activation":
            require(len(maps) == len(slopes) + 1, f"{layer} has no affine layer before it")
            least, most = SLOPES[layer.function]
            slopes.append(((least + most) / 2, (most - least) / 2))
        else:
            require(layer.kind in ("flatten", "shift"), f"{layer} is none that LipLT knows")
    require(bool(maps) and len(maps) == len(slopes), "the trunk does not end with an activation")
    return maps, slopes


def apply_transposed(layer: Layer, y: Float64) -> Float64:
    """Wᵀy, tap by tap: [n, outputs of W] -> [n, inputs of W]."""
    assert layer.weight is not None
    if layer.axes is None:
        return y @ layer.weight
    high, wide = layer.axes
    outputs, rows, columns = layer.output_shape
    _, height, width = layer.input_shape
    y = y.reshape(len(y), outputs, rows * columns)
    x = np.zeros(
        (len(y), len(layer.weight[0]), height + 2 * high.padding, width + 2 * wide.padding)
    )
    for t in range(high.kernel):
        for v in range(wide.kernel):
            part = np.matmul(layer.weight[:, :, t, v].T, y)
            place = x[:, :, t : t + high.stride * rows : high.stride]
            place = place[..., v : v + wide.stride * columns : wide.stride]
            place[:, :, :rows, :columns] += part.reshape(len(y), -1, rows, columns)
    inner = x[:, :, high.padding : high.padding + height, wide.padding : wide.padding + width]
    return inner.reshape(len(y), -1)


def apply(layer: Layer, x: Float64) -> Float64:
    """Wx, tap by tap: [n, inputs of W] -> [n, outputs of W]."""
    assert layer.weight is not None
    if layer.axes is None:
        return x @ layer.weight.T
    high, wide = layer.axes
    outputs, rows, columns = layer.output_shape
    x = x.reshape(len(x), *layer.input_shape)
    padding = [(0, 0), (0, 0), (high.padding, high.padding), (wide.padding, wide.padding)]
    x = np.pad(x, padding)
    y = np.zeros((len(x), outputs, rows * columns))
    for t in range(high.kernel):
        for v in range(wide.kernel):
            window = x[:, :, t : t + high.stride * rows : high.stride, :]
            window = window[:, :, :rows, v : v + wide.stride * columns : wide.stride]
            taken = window[..., :columns].reshape(len(x), -1, rows * columns)
            y += np.matmul(layer.weight[:, :, t, v], taken)
    return y.reshape(len(x), -1)


def chain_error(maps: list[Layer]) -> float:
    """Upper bound of the norm of what rounding does to the computed matrix of a chain."""
    terms, size = 0, 1.0
    for layer in maps:
        assert layer.weight is not None
        taps = layer.weight[0, 0].size
        terms += max(layer.weight.shape[:2]) * taps + taps
        size = size * max(1.0, abs_norm_upper(layer)) * GROW
    return (ceil_float(gamma(terms)) + SMALLEST) * size * GROW


def _prove(
    maps: list[Layer],
    claims: dict[tuple[int, int], float],
    advance: Callable[[int, int], None],
) -> None:
    count = len(maps)
    expected = [(first + more, first) for more in range(count) for first in range(count - more)]
    require(set(claims) == set(expected), "the products of LipLT are not all claimed, once each")
    for done, (last, first) in enumerate(expected):
        claim, chain = claims[last, first], maps[first : last + 1]
        what = f"the product of {quote(chain[0].name)} to {quote(chain[-1].name)}"
        require(
            any(
                Fraction(claim) >= Fraction(claims[last, at + 1]) * Fraction(claims[at, first])
                for at in range(first, last)
            )
            or _proved(chain, claim),
            f"{what} claims the bound {claim!r}, which cannot be proved",
        )
        advance(done + 1, len(expected))


def _proved(chain: list[Layer], claim: float) -> bool:
    inputs, outputs = int(np.prod(chain[0].input_shape)), int(np.prod(chain[-1].output_shape))
    short, long = sorted((inputs, outputs))
    if short <= MOST_ROWS and short * long <= MOST_ENTRIES:
        matrix = np.empty((short, long))
        for start in range(0, short, SLICE):
            units = np.eye(min(SLICE, short - start), short, start)
            for layer in reversed(chain) if outputs <= inputs else chain:
                units = (apply_transposed if outputs <= inputs else apply)(layer, units)
            matrix[start : start + SLICE] = units
        target = (claim - chain_error(chain)) * (1 - 2.0**-47)
        if spectral_upper_bounds(matrix.T[None, None], target)[0] <= target:
            return True
    layer = chain[0]
    if len(chain) > 1:
        return False
    assert layer.weight is not None
    if layer.axes is None:
        return prove_dense(layer.weight, claim).holds
    return prove_convolution(
        layer.weight, layer.axes, claim, layer.hint, lambda done, total: None
    ).holds


def _recursion(
    claims: dict[tuple[int, int], float], slopes: list[tuple[Fraction, Fraction]]
) -> list[Fraction]:
    """m_0 … m_{L−1}, each rounded up to a float64: exact ones would grow without end."""
    constants: list[Fraction] = []
    for k in range(len(slopes)):
        total = _centers(slopes, 0, k) * Fraction(claims[k, 0])
        for j in range(k):
            factor = slopes[j][1] * _centers(slopes, j + 1, k) * constants[j]
            total += factor * Fraction(claims[k, j + 1])
        constants.append(Fraction(ceil_float(total)))
    return constants


def _table(
    maps: list[Layer],
    slopes: list[tuple[Fraction, Fraction]],
    constants: list[Fraction],
    weight: Float64,
) -> Float64:
    """The last step of the recursion for every pair of head rows."""
    count = len(maps)
    factors = [_centers(slopes, 0, count)] + [
        slopes[j][1] * _centers(slopes, j + 1, count) * constants[j] for j in range(count)
    ]
    table = np.zeros((len(weight), len(weight)))
    rows, lengths = weight, np.maximum(norm_upper(weight, (1,)), 1.0)
    for number in reversed(range(count + 1)):
        error = np.zeros(len(weight))
        if number < count:
            parts = [
                apply_transposed(maps[number], rows[start : start + SLICE])
                for start in range(0, len(rows), SLICE)
            ]
            rows = np.concatenate(parts)
            error = lengths * chain_error(maps[number:]) * GROW
        apart = HeadDistances(rows).upper + error[:, None] + error
        table = (table + apart * ceil_float(factors[number]) * GROW) * GROW
    np.fill_diagonal(table, 0.0)
    return table


def _centers(slopes: list[tuple[Fraction, Fraction]], first: int, last: int) -> Fraction:
    product = Fraction(1)
    for center, _ in slopes[first:last]:
        product *= center
    return product
