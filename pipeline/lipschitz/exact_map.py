"""ExactMap: a stored convolution or matrix in float64, forwards and transposed, as matrix products.

Notable: unfolding, one conventional product, and folding, which adds; no library convolution. Every
entry that comes out is a sum of at most `terms` products in some order, so a chain of maps is off,
entry by entry, by at most γ of the sum of their terms times the chain of absolute values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.lipschitz.abs_norms import conv_abs_norm_upper, dense_abs_norm_upper
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.conv import conv2d_norm_bound
from pipeline.lipschitz.dense import dense_norm_bound
from pipeline.lipschitz.rounding import Float64, add_up, gamma, mul_up

ENTRIES_AT_A_TIME = 1 << 23
"""Most unfolded entries of a slice: 64 MiB."""
LOST = 2.0**-900
"""More than underflow can take from the norm of a chain whose absolute norms are at least 1:
2^-1000 for each of less than 2^50 products, twice over."""


@dataclass(frozen=True, eq=False)
class ExactMap:
    """One linear map W."""

    weight: Float64
    """[O, I] or [O, I, kh, kw]; float32 numbers held in float64."""
    input_shape: tuple[int, ...]
    """[I] or [I, H, W]."""
    stride: int = 1
    padding: int = 0

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[O] or [O, H', W']."""
        return (len(self.weight), *self._places)

    @property
    def inputs(self) -> int:
        """Entries of one input."""
        return math.prod(self.input_shape)

    @property
    def outputs(self) -> int:
        """Entries of one output."""
        return math.prod(self.output_shape)

    @property
    def terms(self) -> int:
        """Not below the number of products in an entry of Wx or Wᵀy, sums of sums included."""
        return max(self.weight.shape[:2]) * math.prod(self.weight.shape[2:]) + 1

    @cached_property
    def abs_norm(self) -> float:
        """Upper bound of ‖|W|‖, at least 1."""
        if self.weight.ndim == 2:
            return max(1.0, dense_abs_norm_upper(self.weight))
        return max(1.0, conv_abs_norm_upper(self.weight, self.stride, self.padding))

    def norm_bound(self) -> NormBound:
        """Proved upper bound of ‖W‖."""
        if self.weight.ndim == 2:
            return dense_norm_bound(self.weight)
        height, width = self.input_shape[1:]
        return conv2d_norm_bound(self.weight, (height, width), self.stride, self.padding)

    def apply(self, x: Tensor) -> Tensor:
        """[n, ...] float64 -> [n, *output_shape]."""
        x = x.reshape(len(x), *self.input_shape)
        matrix = torch.from_numpy(self.weight).flatten(1)
        if self.weight.ndim == 2:
            return x @ matrix.T
        return (matrix @ F.unfold(x, self._kernel, 1, self.padding, self.stride)).reshape(
            len(x), *self.output_shape
        )

    def apply_transposed(self, y: Tensor) -> Tensor:
        """[n, ...] float64 -> [n, *input_shape]."""
        matrix = torch.from_numpy(self.weight).flatten(1)
        if self.weight.ndim == 2:
            return y.reshape(len(y), -1) @ matrix
        columns = matrix.T @ y.reshape(len(y), len(self.weight), -1)
        size = (self.input_shape[1], self.input_shape[2])
        return F.fold(columns, size, self._kernel, 1, self.padding, self.stride)

    @property
    def _kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def _places(self) -> tuple[int, ...]:
        sizes = zip(self.input_shape[1:], self.weight.shape[2:], strict=True)
        return tuple((n + 2 * self.padding - k) // self.stride + 1 for n, k in sizes)


def chain_error(maps: Sequence[ExactMap]) -> float:
    """Upper bound of the norm of what rounding does to the computed matrix of a chain of maps."""
    terms = sum(linear.terms for linear in maps)
    size = mul_up(1.0, *(linear.abs_norm for linear in maps))
    return mul_up(add_up(gamma(terms), LOST), size)


def explicit_product(maps: Sequence[ExactMap]) -> Tensor:
    """W_k⋯W_j as a matrix [s, l], s ≤ l: itself, or its transpose if it has more rows than columns.

    Computed column by column or row by row from unit vectors, whichever are fewer.
    """
    transposed = maps[-1].outputs <= maps[0].inputs
    short, long = sorted((maps[-1].outputs, maps[0].inputs))
    matrix = torch.empty(short, long, dtype=torch.float64)
    widest = max(
        linear.weight[0].size * math.prod(linear.output_shape[1:]) + linear.inputs
        for linear in maps
    )
    step = max(1, ENTRIES_AT_A_TIME // widest)
    for start in range(0, short, step):
        units = torch.zeros(min(step, short - start), short, dtype=torch.float64)
        units[:, start : start + step].fill_diagonal_(1.0)
        for linear in reversed(maps) if transposed else maps:
            units = linear.apply_transposed(units) if transposed else linear.apply(units)
        matrix[start : start + step] = units.flatten(1)
    return matrix


def rows_through(maps: Sequence[ExactMap], rows: Float64) -> list[tuple[Tensor, Tensor]]:
    """The rows of W_L⋯W_j for j = 0 … L, each with upper bounds of the norms of their errors.

    Args:
        maps: W_0 … W_{L−1}.
        rows: W_L, [K, outputs of W_{L−1}].

    Returns:
        For each j a matrix [K, inputs of W_j] and bounds [K].
    """
    moving = torch.from_numpy(rows)
    sizes = torch.linalg.vector_norm(moving, dim=1) * (1 + 1e-12)
    found = [(moving, torch.zeros(len(rows), dtype=torch.float64))]
    for number in reversed(range(len(maps))):
        moving = torch.cat([maps[number].apply_transposed(part) for part in moving.split(64)])
        moving = moving.flatten(1)
        found.append((moving, sizes.clamp(min=1.0) * chain_error(maps[number:]) * (1 + 1e-12)))
    return found[::-1]
