"""Estimates of largest eigenvalues by Lanczos: where to look, never what to believe.

Notable: Ritz values approach the largest eigenvalue from below and prove nothing. They choose the
twist of the torus and the q of the Cholesky proof; a bad estimate costs time or tightness only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Stack = NDArray[Any]
START_SEED = 20230


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
    projected = np.zeros((count, steps, steps))
    vector = start
    for step in range(steps):
        basis[:, step] = vector
        image = apply(vector)
        projected[:, step, step] = np.einsum("fi,fi->f", vector.conj(), image).real
        known = basis[:, : step + 1]
        for _ in range(2):  # the second pass removes what rounding left of the first
            overlaps = known.conj() @ image[..., None]
            image = image - (overlaps.mT @ known)[:, 0]
        length = np.linalg.norm(image, axis=1)
        if step + 1 < steps:
            projected[:, step, step + 1] = projected[:, step + 1, step] = length
        # A length of 0 means that the space is invariant: what follows are zero vectors.
        vector = (image / np.where(length > 0, length, 1)[:, None]).astype(start.dtype)
    return np.asarray(np.linalg.eigvalsh(projected)[:, -1])


def gram_operator(blocks: Stack) -> Callable[[Stack], Stack]:
    """v ↦ AᴴAv for a stack A [F, m, n], by two products that read A where it lies."""

    def apply(vectors: Stack) -> Stack:
        images = blocks @ vectors[..., None]  # [F, m, 1]
        return np.asarray((images.conj().mT @ blocks)[:, 0].conj())

    return apply
