"""The training estimate of operator norms: warm-started power iteration.

Notable:
- It approaches the norm from below and is no bound. Certification never uses it.
- Cheap where it counts: the vectors persist from step to step, the iterations run without a graph,
  and the gradient flows through the last product only, where it is u vᵀ, the gradient of a singular
  value (LiResNet, Section 3; Farnia et al. 2019).
- A convolution is applied with the layer's own stride, zero padding and input size.
- The iterations of a training step are divided over the ranks, a layer to each in turn, and the
  vectors exchanged: at a few images a rank they would otherwise outweigh the images.
- Layers of equal shape go through one grouped product, so a backbone of L blocks costs one launch.
- float32 whatever surrounds it: autocast and TF32 are off for the products here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.distributed import current_world, my_share, sum_over_ranks

START_SEED = 0x5EED


@dataclass(frozen=True)
class NormRequest:
    """One layer that asks how steep its linear map is."""

    weight: Tensor
    """The effective weight, differentiable: [O, I] (dense) or [O, I, kh, kw] (convolution)."""
    vector: Tensor
    """The buffer with the latest input singular vector, of norm 1: [I] or [I, H, W]."""
    stride: int = 1
    padding: int = 0

    def geometry(self) -> tuple[object, ...]:
        """Requests with equal geometry share one grouped product."""
        weight = self.weight
        shapes = (weight.shape, self.vector.shape, self.stride, self.padding)
        return (*shapes, weight.dtype, weight.device)


def start_vector(shape: Sequence[int]) -> Tensor:
    """A unit vector to start from: [*shape] float32, the same in every process and every run.

    Gaussian, of a generator of its own: it does not move the global random state, and unlike a
    constant vector it lies in no kernel's null space (a kernel that sums to zero kills constants).
    """
    generator = torch.Generator("cpu").manual_seed(START_SEED)
    vector = torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")
    return (vector / torch.linalg.vector_norm(vector)).to(torch.get_default_device())


def estimate_norms(requests: Sequence[NormRequest], iterations: int, update: bool) -> Tensor:
    """Estimate the l2 operator norm of every request.

    Args:
        requests: the layers, in any order and of any mixture of shapes.
        iterations: products with WᵀW before the last product; 0 takes the vectors as they are.
        update: store the vectors reached in the requests' buffers.

    Returns:
        [n] float32 (float64 for float64 weights), in the order of the requests, differentiable
        with respect to the weights. An all-zero weight gives 0, with gradient 0.
    """
    divide = update and iterations > 0
    mine = my_share(len(requests)) if divide else range(len(requests))
    # Copies: the buffers change below, and what backward saved must not.
    vectors = [request.vector.to(_dtype(request), copy=True) for request in requests]
    for members in _alike([(index, requests[index]) for index in mine]):
        group = [requests[index] for index in members]
        for index, vector in zip(members, _advanced(group, iterations), strict=True):
            vectors[index] = vector
    if divide and current_world().size > 1:  # not by `mine`: a rank may have all or none
        vectors = _exchanged(vectors, mine)
    if update:
        for request, vector in zip(requests, vectors, strict=True):
            request.vector.copy_(vector)
    norms: dict[int, Tensor] = {}
    for members in _alike(list(enumerate(requests))):
        group = [requests[index] for index in members]
        found = _norms(group, torch.stack([vectors[index] for index in members]))
        norms.update(zip(members, found, strict=True))
    return torch.stack([norms[index] for index in range(len(requests))])


def _alike(requests: Sequence[tuple[int, NormRequest]]) -> list[list[int]]:
    """Numbers of the requests, those of equal geometry together."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, request in requests:
        groups.setdefault(request.geometry(), []).append(index)
    return list(groups.values())


def _dtype(request: NormRequest) -> torch.dtype:
    """What is computed in: at least float32."""
    return torch.promote_types(request.weight.dtype, torch.float32)


def _stacked(group: list[NormRequest]) -> Tensor:
    """[G, O, I, ...]."""
    return torch.stack([request.weight.to(_dtype(request)) for request in group])


@torch.no_grad()
def _advanced(group: list[NormRequest], iterations: int) -> Tensor:
    """[G, I, ...] the vectors of G requests of one geometry after so many products with WᵀW."""
    device = group[0].weight.device
    with torch.autocast(device.type, enabled=False), _ieee_products(device):
        weights, stack = _stacked(group), _Stack(group[0])
        vectors = torch.stack([request.vector.to(weights.dtype) for request in group])
        for _ in range(iterations):
            images = normalized(stack.apply(weights, vectors), 0.0)
            vectors = normalized(stack.apply_transposed(weights, images), vectors)
        return vectors


def _exchanged(vectors: list[Tensor], mine: range) -> list[Tensor]:
    """Every rank's vectors on every rank, in one message; equal everywhere to the bit."""
    sizes = [vector.numel() for vector in vectors]
    flat = torch.cat(
        [(v if i in mine else torch.zeros_like(v)).flatten() for i, v in enumerate(vectors)]
    )
    pieces = sum_over_ranks(flat).split(sizes)  # one rank's values and zeros: the sum is exact
    return [piece.view_as(vector) for piece, vector in zip(pieces, vectors, strict=True)]


def _norms(group: list[NormRequest], vectors: Tensor) -> Tensor:
    """[G] norms of W·v, through which the gradient flows."""
    device = group[0].weight.device
    with torch.autocast(device.type, enabled=False), _ieee_products(device):
        weights = _stacked(group)
        images = _Stack(group[0]).apply(weights, vectors)
        return torch.linalg.vector_norm(images.flatten(1), dim=1)


class _Stack:
    """The linear maps of one geometry and their transposes, G at a time."""

    def __init__(self, request: NormRequest) -> None:
        self.is_dense = request.weight.ndim == 2
        self.stride, self.padding = request.stride, request.padding
        self.input_size = request.vector.shape[1:]

    def apply(self, weights: Tensor, vectors: Tensor) -> Tensor:
        """[G, O, I, ...], [G, I, ...] -> [G, O, ...]."""
        if self.is_dense:
            return torch.bmm(weights, vectors.unsqueeze(2)).squeeze(2)
        groups, outputs = weights.shape[:2]
        images = F.conv2d(
            vectors.flatten(0, 1).unsqueeze(0),  # [1, G·I, H, W]
            weights.flatten(0, 1),  # [G·O, I, kh, kw]
            stride=self.stride,
            padding=self.padding,
            groups=groups,
        )
        return images.view(groups, outputs, *images.shape[2:])

    def apply_transposed(self, weights: Tensor, images: Tensor) -> Tensor:
        """[G, O, I, ...], [G, O, ...] -> [G, I, ...]."""
        if self.is_dense:
            return torch.bmm(images.unsqueeze(1), weights).squeeze(1)
        groups, _, inputs = weights.shape[:3]
        vectors = F.conv_transpose2d(
            images.flatten(0, 1).unsqueeze(0),
            weights.flatten(0, 1),
            stride=self.stride,
            padding=self.padding,
            # Rows that no window reaches (the stride does not divide the size) are zeros.
            output_padding=[
                size - ((out - 1) * self.stride - 2 * self.padding + kernel)
                for size, out, kernel in zip(
                    self.input_size, images.shape[2:], weights.shape[3:], strict=True
                )
            ],
            groups=groups,
        )
        return vectors.view(groups, inputs, *vectors.shape[2:])


def normalized(x: Tensor, otherwise: Tensor | float) -> Tensor:
    """Each x[g] divided by its norm; `otherwise` where that is zero.

    Divided by the norm itself: norm + 1e-9 makes the estimate of a small kernel too small.
    """
    norms = torch.linalg.vector_norm(x.flatten(1), dim=1).view(-1, *[1] * (x.ndim - 1))
    return torch.where(norms > 0, x / norms, otherwise)


@contextmanager
def _ieee_products(device: torch.device) -> Iterator[None]:
    """Full float32 products on NVIDIA GPUs, where convolutions default to TF32 (10 bits)."""
    if device.type != "cuda":
        yield
        return
    backends: list[Any] = [torch.backends.cudnn.conv, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    saved = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, saved, strict=True):
            backend.fp32_precision = precision
