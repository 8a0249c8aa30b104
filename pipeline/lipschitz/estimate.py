"""Estimates of largest eigenvalues by Lanczos: where to look, never what to believe.

Notable: Ritz values approach the largest eigenvalue from below and prove nothing. They choose the
twist of the torus and the q of the Cholesky proof; a bad estimate costs time or tightness only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal

Stack = NDArray[Any]
START_SEED = 20230
CALM, STILL = 8, 1e-8
"""A Ritz value has converged when this many steps moved it by less than this share."""


def start_vectors(count: int, size: int, dtype: Any) -> Stack:
    """[count, size] equal unit vectors in general position, the same in every run."""
    vector = np.random.default_rng(START_SEED).standard_normal(size)
    return np.tile((vector / np.linalg.norm(vector)).astype(dtype), (count, 1))


def largest_ritz_values(apply: Callable[[Stack], Stack], start: Stack, steps: int) -> Stack:
    """Lower estimates of the largest eigenvalues of a stack of Hermitian matrices: [F].

    Lanczos with full reorthogonalisation, all matrices in step; the result is sharp when `steps`
    reaches their size.

    Args:
        apply: the matrices times a stack of vectors, [F, n] -> [F, n].
        start: [F, n] unit vectors; their dtype is the precision of the work.
        steps: number of products; more than n are not made.
    """
    count, size = start.shape
    steps = min(steps, size)
    basis = np.zeros((count, steps, size), start.dtype)
    negligible = np.sqrt(np.finfo(start.dtype).eps)
    projected = np.zeros((count, steps, steps))
    vector = start
    for step in range(steps):
        basis[:, step] = vector
        image = apply(vector)
        projected[:, step, step] = np.einsum("fi,fi->f", vector.conj(), image).real
        before = np.linalg.norm(image, axis=1)
        known = basis[:, : step + 1]
        for _ in range(2):  # the second pass removes what rounding left of the first
            overlaps = known.conj() @ image[..., None]
            image = image - (overlaps.mT @ known)[:, 0]
        length = np.linalg.norm(image, axis=1)
        # What is left of an invariant space is rounding, which is orthogonal to nothing and would
        # bring Ritz values above every eigenvalue: go on with zero vectors there.
        inverse = np.zeros_like(length)
        np.divide(1, length, out=inverse, where=length > negligible * before)
        vector = (image * inverse[:, None]).astype(start.dtype)
        if step + 1 < steps:
            coupling = np.where(inverse > 0, length, 0)
            projected[:, step, step + 1] = projected[:, step + 1, step] = coupling
    return np.asarray(np.linalg.eigvalsh(projected)[:, -1])


def converged_ritz_value(apply: Callable[[Stack], Stack], start: Stack, steps: int) -> float:
    """Lower estimate of the largest eigenvalue of one large Hermitian matrix, once it stands.

    Args:
        apply: the matrix times a vector, [n] -> [n].
        start: [n], a unit vector; its dtype is the precision of the work.
        steps: the most products.
    """
    basis = np.zeros((min(steps, start.size), start.size), start.dtype)
    diagonal: list[float] = []
    beside: list[float] = []
    seen: list[float] = []
    vector = start
    for step in range(len(basis)):
        basis[step] = vector
        image = apply(vector)
        before = float(np.linalg.norm(image))
        diagonal.append(float(np.vdot(vector, image).real))
        seen.append(float(eigvalsh_tridiagonal(diagonal, beside)[-1]))
        if step >= CALM and seen[-1] - seen[-1 - CALM] <= STILL * seen[-1]:
            break
        known = basis[: step + 1]
        for _ in range(2):  # the second pass removes what rounding left of the first
            image = image - (known.conj() @ image) @ known
        length = float(np.linalg.norm(image))
        if length <= np.sqrt(np.finfo(start.dtype).eps) * before:
            break  # an invariant space; what is left is rounding
        vector = image / length
        beside.append(length)
    return seen[-1]


def gram_operator(blocks: Stack) -> Callable[[Stack], Stack]:
    """v ↦ AᴴAv for a stack A [F, m, n], by two products that read A where it lies."""

    def apply(vectors: Stack) -> Stack:
        images = blocks @ vectors[..., None]  # [F, m, 1]
        return np.asarray((images.conj().mT @ blocks)[:, 0].conj())

    return apply
