"""The training estimate of LipLT for residual networks (Fazlyab et al. 2023, Theorem 3, (16)).

    y_k = W_k x_k,  x_{k+1} = H_k x_k + G_k φ_k(y_k),  Ĥ_k = H_k + c_k G_k W_k
    m_k = ‖W_k Ĥ_{k−1}⋯Ĥ_0‖ + Σ_{j<k} s_j ‖W_k Ĥ_{k−1}⋯Ĥ_{j+1} G_j‖ m_j

Notable: as `liplt_estimate`, all products in one sweep. A product begins at the input or behind one
φ_j and ends at one W_k; at stage ℓ the vectors on their way form a rectangle, starts by targets,
which goes through Ĥ_ℓ as one batch. Warm-started, differentiable through the last product, from
below, and no bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.lipschitz.liplt_estimate import Map
from pipeline.lipschitz.power_iteration import START_SEED, normalized
from pipeline.lipschitz.slopes import Slopes


@dataclass(frozen=True)
class Stage:
    """X ↦ H x + G φ(W x)."""

    inner: Map
    """W."""
    outer: Map | None
    """G; None for the identity."""
    skip: bool
    """H is the identity; else 0."""
    slopes: Slopes

    def enter(self, x: Tensor) -> Tensor:
        """G x: [n, h] -> [n, d], flat."""
        return x if self.outer is None else self.outer.apply(x).flatten(1)

    def leave(self, y: Tensor) -> Tensor:
        """Gᵀ y."""
        return y if self.outer is None else self.outer.apply_transposed(y).flatten(1)

    def looped(self, x: Tensor) -> Tensor:
        """Ĥ x, flat."""
        branch = self.slopes.center * self.enter(self.inner.apply(x).flatten(1))
        return x + branch if self.skip else branch

    def looped_back(self, y: Tensor) -> Tensor:
        """Ĥᵀ y, flat."""
        back = self.slopes.center * self.inner.apply_transposed(self.leave(y)).flatten(1)
        return y + back if self.skip else back


def start_vectors(inputs: int, hidden: Sequence[int]) -> list[Tensor]:
    """Unit vectors where products begin: [L, inputs], then [L − 1 − j, h_j] behind each φ_j.

    Args:
        inputs: numbers in an image.
        hidden: h_j of each stage.
    """
    count, found = len(hidden), []
    for number, size in enumerate([inputs, *hidden[:-1]]):
        generator = torch.Generator("cpu").manual_seed(START_SEED + number)
        targets = count - number
        vectors = torch.randn((targets, size), generator=generator, device="cpu")
        found.append(normalized(vectors, vectors).to(torch.get_default_device()))
    return found


def residual_norms(
    stages: Sequence[Stage], vectors: Sequence[Tensor], iterations: int, update: bool
) -> list[Tensor]:
    """Entry k: estimates of the k + 1 norms of m_k, differentiable.

    Args:
        stages: k = 0 … L − 1.
        vectors: as `start_vectors` makes them.
        iterations: products with PᵀP before the last one.
        update: store the vectors reached in the buffers.
    """
    with torch.no_grad():
        moving = [each.to(stages[0].inner.weight.dtype, copy=True) for each in vectors]
        for _ in range(iterations):
            images = [normalized(image, 0.0) for image in _forward(stages, moving)]
            moving = [
                normalized(new, old)
                for new, old in zip(_backward(stages, images), moving, strict=True)
            ]
        if update:
            for buffer, vector in zip(vectors, moving, strict=True):
                buffer.copy_(vector)
    return [torch.linalg.vector_norm(image, dim=1) for image in _forward(stages, moving)]


def rows_through(stages: Sequence[Stage], rows: Tensor) -> list[Tensor]:
    """R Ĥ_{L−1}⋯Ĥ_0 and, for each j, R Ĥ_{L−1}⋯Ĥ_{j+1} G_j: [K, …] each."""
    found = []
    for stage in reversed(stages):
        found.append(stage.leave(rows))
        rows = stage.looped_back(rows)
    return [rows, *reversed(found)]


def combine(
    norms: Sequence[Tensor], slopes: Sequence[Slopes], head: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """M_0 … m_{L−1}, and the constants of the head in the head's shape.

    Args:
        norms: as `residual_norms` returns them.
        slopes: of φ_0 … φ_{L−1}.
        head: norms of what `rows_through` returns, of any one shape (pairs of classes).
    """
    constants: list[Tensor] = []
    tables: list[Tensor | Sequence[Tensor]] = [*norms, head]
    for row in tables:
        total = row[0]
        for j in range(len(row) - 1):
            total = total + slopes[j].spread * row[j + 1] * constants[j]
        constants.append(total)
    return constants[:-1], constants[-1]


def _forward(stages: Sequence[Stage], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Entry k: images [k + 1, h_k] at W_k, of the start at the input and behind φ_0 … φ_{k−1}."""
    arrived: list[Tensor] = []
    moving = vectors[0][None]  # [starts, targets, d]
    for number, stage in enumerate(stages):
        arrived.append(stage.inner.apply(moving[:, 0]).flatten(1))
        if number + 1 == len(stages):
            break
        rest = moving[:, 1:]
        through = stage.looped(rest.flatten(0, 1)).unflatten(0, rest.shape[:2])
        fresh = stage.enter(vectors[number + 1])[None]
        moving = torch.cat([through, fresh])
    return arrived


def _backward(stages: Sequence[Stage], images: Sequence[Tensor]) -> list[Tensor]:
    """The transposed products of the images, in the shapes of `start_vectors`."""
    arrived: list[Tensor] = []
    moving: Tensor | None = None
    for stage, own in zip(reversed(stages), reversed(images), strict=True):
        rectangle = stage.inner.apply_transposed(own).flatten(1)[:, None]
        if moving is not None:
            arrived.append(stage.leave(moving[-1]))
            rest = moving[:-1]
            through = stage.looped_back(rest.flatten(0, 1)).unflatten(0, rest.shape[:2])
            rectangle = torch.cat([rectangle, through], dim=1)
        moving = rectangle
    assert moving is not None
    return [moving[0], *reversed(arrived)]
