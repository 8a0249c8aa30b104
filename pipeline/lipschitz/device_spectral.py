"""`spectral.py` and the search among tori on a GPU: the same theorem, all of a chunk in a batch.

Notable: forming AᴴA is cheap there, so norms are estimated from it: by power iteration for all,
by `eigvalsh` for the steepest blocks. Estimates choose the torus and q, and prove nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.lipschitz.device import (
    factor_on,
    gram_product_on,
    joined,
    squares_on,
    start_on,
)
from pipeline.lipschitz.rounding import Float64, silent
from pipeline.lipschitz.spectral import (
    MARGIN,
    WIDER_MARGINS,
    SpectralBound,
    gram_upper,
    product_error,
    residual_bound,
)
from pipeline.lipschitz.torus import TorusBlocks

CHUNK_BYTES = 2**30
"""Of blocks in double precision; a proof holds about eight times as much."""
POWER_STEPS = 24
STEEPEST = 4
"""Blocks of each torus whose norm is found by `eigvalsh`."""


@silent
def spectral_upper_on(parts: Tensor, q: float | None = None) -> SpectralBound:
    """Upper bound of the largest σ_max of a stack [F, P, m, n] on its device.

    As `spectral.spectral_upper`, whose last resort, Gram iteration, runs on the CPU.
    """
    rows, columns = parts.shape[2:]
    products = gram_product_on(parts)
    error = product_error(rows, columns, squares_on(parts))
    tries = [q] if q is not None else []
    if not tries:
        largest = float(_largest_eigenvalue(products))
        tries = [largest * (1 + margin) for margin in WIDER_MARGINS]
    for guess in tries:
        value = float(_cholesky_upper(products, error, guess).max())
        if value < np.inf:
            return SpectralBound(value, "cholesky", guess)
    if q is not None:
        return spectral_upper_on(parts)
    return SpectralBound(float(gram_upper(parts.cpu().numpy()).max()), "gram", 0.0)


def _cholesky_upper(products: Tensor, error: Float64, q: float) -> Float64:
    """Upper bounds of σ_max by the factor of qI − H: [F]."""
    shifted = -products
    diagonal = shifted[:, 0].diagonal(dim1=1, dim2=2)  # a view
    diagonal += q
    factor = factor_on(shifted)
    return residual_bound(
        error,
        q,
        diagonal.abs().amax(1).cpu().numpy(),
        squares_on(shifted - gram_product_on(factor)),
        squares_on(factor),
        products.shape[-1],
    )


def prove_torus_on(torus: TorusBlocks, q: float | None, device: torch.device) -> SpectralBound:
    """The largest norm of all (computed) blocks of a torus."""
    bounds = [spectral_upper_on(_parts(torus, which, device), q) for which in _chunks(torus)]
    worst = max(bounds, key=lambda bound: bound.value)
    method = "cholesky" if all(bound.method == "cholesky" for bound in bounds) else "gram"
    return SpectralBound(worst.value, method, max(bound.q for bound in bounds))


def most_promising_on(tori: list[TorusBlocks], device: torch.device) -> tuple[TorusBlocks, float]:
    """The torus that seems to have the least bound, and a q slightly above its largest σ²."""
    largest = []
    for torus in tori:
        rough = torch.cat(
            [_rough(gram_product_on(_parts(torus, which, device))) for which in _chunks(torus)]
        )
        steepest = rough.argsort(descending=True)[:STEEPEST].cpu().numpy()
        largest.append(float(_largest_eigenvalue(gram_product_on(_parts(torus, steepest, device)))))
    best = min(range(len(tori)), key=largest.__getitem__)
    return tori[best], largest[best] * (1 + MARGIN)


def _parts(torus: TorusBlocks, which: slice | np.ndarray, device: torch.device) -> Tensor:
    """As `TorusBlocks.parts`: one matrix product sums the taps, so its error bound holds here."""
    rows, columns = torus.taps.shape[2:]
    flat = torch.from_numpy(torus.taps.reshape(-1, rows * columns)).to(device)
    if torus.is_exact:
        return flat.reshape(1, 1, rows, columns)
    chosen = torus.twiddles.reshape(len(torus), 2, -1)[which]
    waves = torch.from_numpy(np.ascontiguousarray(chosen.reshape(-1, len(flat)))).to(device)
    return (waves @ flat).reshape(-1, 2, rows, columns)


def _chunks(torus: TorusBlocks) -> list[slice]:
    step = max(1, CHUNK_BYTES // (16 * torus.taps.shape[2] * torus.taps.shape[3]))
    return [slice(start, start + step) for start in range(0, len(torus), step)]


def _rough(products: Tensor) -> Tensor:
    """Estimates of the largest eigenvalue of every H [F, P, n, n], by power iteration: [F]."""
    matrices = joined(products)
    vectors = start_on(len(matrices), matrices.shape[-1], products.device).to(matrices.dtype)
    length = torch.ones(len(matrices), 1, 4, dtype=products.dtype, device=products.device)
    for _ in range(POWER_STEPS):
        images = matrices @ vectors
        length = torch.linalg.vector_norm(images, dim=1, keepdim=True)
        vectors = images / length.clamp(min=1e-300)
    return length.amax((1, 2))


def _largest_eigenvalue(products: Tensor) -> Tensor:
    """The largest over a stack of H; 0 if they are out of range, for Gram iteration to prove."""
    if not bool(products.isfinite().all()):
        return products.new_zeros(())
    return torch.linalg.eigvalsh(joined(products)).amax().clamp(min=0)
