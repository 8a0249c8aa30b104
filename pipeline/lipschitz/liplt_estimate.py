"""The training estimate of LipLT (Fazlyab et al. 2023, Theorem 3) for x_{k+1} = φ_k(W_k x_k + b_k).

    m_k = C(0,k)·‖W_k⋯W_0‖ + Σ_{j<k} s_j·C(j+1,k)·‖W_k⋯W_{j+1}‖·m_j,   C(a,k) = c_a c_{a+1}⋯c_{k−1}

with c the centre and s the spread of an activation's slopes (c = s = 1/2 for ReLU): every W_k⋯W_j
is one map, so what two layers do to each other is not lost as in ∏‖W_k‖.

Notable:
- All L(L+1)/2 products are iterated in one sweep. At layer ℓ the vectors on their way form a
  rectangle, starts 0…ℓ by targets ℓ…L−1, which goes through W_ℓ as one batch.
- As `power_iteration`: warm-started from buffers, without a graph but for the last product. From
  below, and no bound; certification is `liplt_bound`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.lipschitz.power_iteration import START_SEED, normalized
from pipeline.lipschitz.slopes import Slopes


@dataclass(frozen=True)
class Map:
    """One linear map W: inputs [n, *input_shape] -> outputs."""

    weight: Tensor
    """[O, I] (dense) or [O, I, kh, kw] (convolution)."""
    input_shape: tuple[int, ...]
    """[I] or [I, H, W]."""
    stride: int = 1
    padding: int = 0

    def apply(self, x: Tensor) -> Tensor:
        """[n, ...] with as many entries as the input -> [n, *output_shape]."""
        x = x.reshape(len(x), *self.input_shape)
        if self.weight.ndim == 2:
            return x @ self.weight.T
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)

    def apply_transposed(self, y: Tensor) -> Tensor:
        """[n, *output_shape], or flattened -> [n, *input_shape]."""
        if self.weight.ndim == 2:
            return y.flatten(1) @ self.weight
        kernel = self.weight.shape[2:]
        outputs = [
            (size + 2 * self.padding - k) // self.stride + 1
            for size, k in zip(self.input_shape[1:], kernel, strict=True)
        ]
        left_over = [
            size - ((out - 1) * self.stride - 2 * self.padding + k)
            for size, out, k in zip(self.input_shape[1:], outputs, kernel, strict=True)
        ]
        return F.conv_transpose2d(
            y.reshape(len(y), len(self.weight), *outputs),
            self.weight,
            stride=self.stride,
            padding=self.padding,
            output_padding=left_over,
        )


def start_vectors(maps: int, start: int, shape: Sequence[int]) -> Tensor:
    """[maps − start, *shape] unit vectors for the products that begin at layer `start`."""
    generator = torch.Generator("cpu").manual_seed(START_SEED + start)
    vectors = torch.randn((maps - start, *shape), generator=generator, device="cpu")
    return normalized(vectors, vectors).to(torch.get_default_device())


def partial_norms(
    maps: Sequence[Map], vectors: Sequence[Tensor], iterations: int, update: bool
) -> list[Tensor]:
    """Estimates of ‖W_k⋯W_j‖ for all j ≤ k: entry k is [k + 1], differentiable.

    Args:
        maps: W_0, W_1, …, the output of each the input of the next, up to the shape.
        vectors: for each start j a buffer [L − j, *input_shape], a unit vector a target.
        iterations: products with PᵀP before the last one; 0 takes the vectors as they are.
        update: store the vectors reached in the buffers.
    """
    with torch.no_grad():
        moving = [buffer.to(maps[0].weight.dtype, copy=True) for buffer in vectors]
        for _ in range(iterations):
            images = [normalized(image, 0.0) for image in _forward(maps, moving)]
            moving = [
                normalized(new, old)
                for new, old in zip(_backward(maps, images), moving, strict=True)
            ]
        if update:
            for buffer, vector in zip(vectors, moving, strict=True):
                buffer.copy_(vector)
    return [torch.linalg.vector_norm(image.flatten(1), dim=1) for image in _forward(maps, moving)]


def rows_through(maps: Sequence[Map], rows: Tensor) -> list[Tensor]:
    """The rows of W_L⋯W_j for j = 0 … L, exact but for rounding: entry j is [K, inputs of W_j].

    Args:
        maps: W_0 … W_{L−1}.
        rows: W_L, [K, outputs of W_{L−1}].
    """
    found = [rows]
    for linear in reversed(maps):
        found.append(linear.apply_transposed(found[-1]).flatten(1))
    return found[::-1]


def combine(
    norms: Sequence[Tensor], slopes: Sequence[Slopes], head: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Theorem 3 from the norms of the products.

    Args:
        norms: entry k holds ‖W_k⋯W_j‖ for j = 0 … k.
        slopes: of φ_0 … φ_{L−1}.
        head: ‖·‖ of what stands in for W_L⋯W_j, j = 0 … L, of any one shape (pairs of classes).

    Returns:
        m_0 … m_{L−1}, and the constants of the head in the head's shape.
    """
    constants: list[Tensor] = []
    tables: list[Tensor | Sequence[Tensor]] = [*norms, head]
    for k, row in enumerate(tables):
        total = row[0] * _centers(slopes, 0, k)
        for j in range(k):
            total = total + row[j + 1] * (
                slopes[j].spread * _centers(slopes, j + 1, k) * constants[j]
            )
        constants.append(total)
    return constants[:-1], constants[-1]


def _centers(slopes: Sequence[Slopes], first: int, last: int) -> float:
    """C(first, last)."""
    return math.prod(slope.center for slope in slopes[first:last])


def _forward(maps: Sequence[Map], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Entry k: the images [k + 1, ...] of W_k⋯W_j for j = 0 … k."""
    arrived: list[Tensor] = []
    moving: Tensor | None = None  # [starts, targets, ...]
    for linear, fresh in zip(maps, vectors, strict=True):
        rectangle = fresh[None]
        if moving is not None:
            rectangle = torch.cat([moving.reshape(*moving.shape[:2], *fresh.shape[1:]), rectangle])
        images = linear.apply(rectangle.flatten(0, 1))
        images = images.reshape(*rectangle.shape[:2], *images.shape[1:])
        arrived.append(images[:, 0])
        moving = images[:, 1:]
    return arrived


def _backward(maps: Sequence[Map], images: Sequence[Tensor]) -> list[Tensor]:
    """Entry j: the transposed products of the images, [L − j, *input_shape of W_j]."""
    arrived: list[Tensor] = []
    moving: Tensor | None = None
    for linear, own in zip(reversed(maps), reversed(images), strict=True):
        rectangle = own[:, None]
        if moving is not None:
            rest = moving.reshape(*moving.shape[:2], *own.shape[1:])
            rectangle = torch.cat([rectangle, rest], dim=1)
        back = linear.apply_transposed(rectangle.flatten(0, 1))
        back = back.reshape(*rectangle.shape[:2], *back.shape[1:])
        arrived.append(back[-1])
        moving = back[:-1]
    return arrived[::-1]
