"""Certified norm of a zero-padded, strided convolution: the best of the half-twisted tori.

Notable:
- Each choice of twists gives a bound. All are estimated (Lanczos on every block in single
  precision, then on the steepest few in double), only the most promising one is proved.
- Proving works through chunks of blocks, so that a layer of 588 channels needs tens of megabytes,
  and a chunk is the unit of work of a thread: the bound does not depend on their number.
- A chunk for which the common q was too small finds its own; the bound is the largest of all.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from pipeline.lipschitz.arrays import exact_float64
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.device import proving_device
from pipeline.lipschitz.device_spectral import most_promising_on, prove_torus_on
from pipeline.lipschitz.estimate import gram_operator, largest_ritz_values, start_vectors
from pipeline.lipschitz.evidence import published, trivial_bound
from pipeline.lipschitz.parallel import map_in_order
from pipeline.lipschitz.polyphase import Axis, axes_of, int_pair, polyphase
from pipeline.lipschitz.rounding import Float64, scaled_to_one, silent
from pipeline.lipschitz.spectral import MARGIN, SpectralBound, spectral_upper
from pipeline.lipschitz.torus import TorusBlocks

CHUNK_BYTES = 16 * 2**20
CHEAP_ENTRIES = 5_000_000
"""Entries of all blocks (128 channels at 16x16) up to which tori one larger are tried as well: they
bring the excess of small random kernels from 1.2 to below 1 percent."""
SMALL_TORUS = 40
"""Beyond this size the excess is too small to matter: it falls with the square."""
ROUGH_STEPS = 12
FINE_STEPS = 40
STEEPEST = 4
"""Blocks of each torus whose norm is estimated in double precision."""


def certified_conv2d_norm(
    weight: Any,
    input_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> float:
    """A float64 that is not below the l2 operator norm of a 2-D convolution with zero padding.

    Theorem: the convolution is a corner of a block-circulant operator on a twisted torus of
    N = max(n', m, n' + P, m + Q) points per axis, so its norm is at most the largest norm of the
    torus' frequency blocks (docs/certificate.md §2); each block is bounded by a Cholesky
    factorisation whose residual is computed (§3). With stride = kernel and no padding the bound is
    the norm of the reshaped kernel; in general it is a fraction of a percent above the truth.

    Args:
        weight: [O, I, kh, kw], a torch tensor or array of any dtype that float64 contains.
        input_size: (height, width) of the input, or one number for both.
        stride: as in `torch.nn.functional.conv2d`.
        padding: zeros on every side, as there.

    Returns:
        The bound: 0 for a zero kernel, inf where an entry is NaN or infinite or float64 overflows.

    Raises:
        ValueError: the weight is not [O, I, kh, kw], a size is not a positive integer, or the
            kernel does not fit into the padded input.
    """
    return conv2d_norm_bound(weight, input_size, stride, padding).value


@silent
def conv2d_norm_bound(
    weight: Any,
    input_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> NormBound:
    """`certified_conv2d_norm` with its evidence: torus, twist, number of blocks, q, slack."""
    kernel, axes, size = geometry(weight, input_size, stride, padding)
    trivial = trivial_bound(kernel)
    if trivial is not None:
        return trivial
    scaled, exponent = scaled_to_one(kernel)
    taps = polyphase(scaled, axes)
    if taps.shape[2] < taps.shape[3]:
        taps = np.ascontiguousarray(taps.swapaxes(2, 3))
    tori = _candidates(taps, (axes[0].torus(size[0]), axes[1].torus(size[1])))
    device = proving_device()
    torus, q = tori[0], None
    if not torus.is_exact:
        torus, q = _most_promising(tori) if device is None else most_promising_on(tori, device)
    proof = prove_blocks(torus, q) if device is None else prove_torus_on(torus, q, device)
    evidence: dict[str, Any] = {
        "torus": list(torus.sizes),
        "twist": ["1/2" if half else "0" for half in torus.halves],
        "blocks": len(torus),
    }
    return published("torus", proof, torus.error, exponent, evidence)


def geometry(
    weight: Any,
    input_size: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
) -> tuple[Float64, tuple[Axis, Axis], tuple[int, int]]:
    """The arguments of `certified_conv2d_norm`, checked: kernel, axes, input (height, width).

    Raises:
        ValueError: as there.
    """
    kernel = exact_float64(weight, ("O", "I", "kh", "kw"))
    axes = axes_of(kernel, stride, padding)
    size = int_pair(input_size, "input_size", 1)
    for axis, inputs in zip(axes, size, strict=True):
        if axis.outputs(inputs) < 1:
            raise ValueError(
                f"kernel of length {axis.kernel} does not fit into an input of {inputs} with "
                f"padding {axis.padding}"
            )
    return kernel, axes, size


def _candidates(taps: Float64, least: tuple[int, int]) -> list[TorusBlocks]:
    """Tori worth an estimate: the least, for cheap layers also one larger, all half-twists."""
    entries = least[0] * least[1] * taps.shape[2] * taps.shape[3]
    more = 1 if entries <= CHEAP_ENTRIES and max(least) <= SMALL_TORUS else 0
    per_axis = [
        [(size, half) for size in range(n, n + more + 1) for half in (0, 1)]
        if count > 1
        else [(n, 0)]
        for n, count in zip(least, taps.shape[:2], strict=True)
    ]
    return [
        TorusBlocks(taps, (high[0], wide[0]), (high[1], wide[1]))
        for high, wide in product(*per_axis)
    ]


def prove_blocks(torus: TorusBlocks, q: float | None) -> SpectralBound:
    """The largest norm of all (computed) blocks of a torus."""
    bounds = map_in_order(lambda which: spectral_upper(torus.parts(which), q), _chunks(torus))
    worst = max(bounds, key=lambda bound: bound.value)
    method = "cholesky" if all(bound.method == "cholesky" for bound in bounds) else "gram"
    return SpectralBound(worst.value, method, max(bound.q for bound in bounds))


def _most_promising(tori: list[TorusBlocks]) -> tuple[TorusBlocks, float]:
    """The torus that seems to have the least bound, and a q slightly above its largest σ²."""
    work = [(index, which) for index, torus in enumerate(tori) for which in _chunks(torus)]
    rough = map_in_order(lambda item: _rough_squares(tori[item[0]], item[1]), work)
    steepest = []
    for index in range(len(tori)):
        parts = [part for (owner, _), part in zip(work, rough, strict=True) if owner == index]
        order = np.argsort(-np.concatenate(parts), kind="stable")
        steepest += [(index, block) for block in order[:STEEPEST]]
    fine = map_in_order(lambda item: _fine_square(tori[item[0]], item[1]), steepest)
    largest = [0.0] * len(tori)
    for (index, _), square in zip(steepest, fine, strict=True):
        largest[index] = max(largest[index], square)
    best = min(range(len(tori)), key=largest.__getitem__)
    return tori[best], largest[best] * (1 + MARGIN)


def _chunks(torus: TorusBlocks) -> list[slice]:
    """All blocks, in pieces of about CHUNK_BYTES in double precision."""
    step = max(1, CHUNK_BYTES // (16 * torus.taps.shape[2] * torus.taps.shape[3]))
    return [slice(start, start + step) for start in range(0, len(torus), step)]


@silent
def _rough_squares(torus: TorusBlocks, which: slice) -> np.ndarray:
    """Estimates of σ² of some blocks, good for a comparison."""
    blocks = torus.rough(which)
    start = start_vectors(len(blocks), blocks.shape[-1], blocks.dtype)
    return largest_ritz_values(gram_operator(blocks), start, ROUGH_STEPS)


@silent
def _fine_square(torus: TorusBlocks, index: int) -> float:
    """Estimate of σ² of one block, good for choosing q."""
    parts = torus.parts(np.array([index]))
    blocks = parts[:, 0] + 1j * parts[:, 1]
    start = start_vectors(1, blocks.shape[-1], blocks.dtype)
    return float(largest_ritz_values(gram_operator(blocks), start, FINE_STEPS)[0])
