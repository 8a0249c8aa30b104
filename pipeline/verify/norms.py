"""Re-proof of a layer's claimed Lipschitz bound; what the certificate says of its proof is a hint.

Notable: a convolution's claim may have been proved on one of several tori, or with one axis or both
not wrapped. The hint names it, so it is tried first, but only if the theorem allows it; then the
least torus with its four half-twists.
A claim that none of them proves is refused, with the best bound that was reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.verify.gram import spectral_upper_bounds
from pipeline.verify.outward import GROW, Float64
from pipeline.verify.semi_torus import bound_on, is_feasible
from pipeline.verify.torus import (
    Axis,
    Torus,
    block_error,
    frequencies,
    frequency_blocks,
    polyphase,
)

Advance = Callable[[int, int], None]
"""Called with (blocks done, blocks in all) of the torus being tried."""
HALVES = (Fraction(0), Fraction(1, 2))
LARGEST_DENOMINATOR = 64


@dataclass(frozen=True)
class Proof:
    """The outcome for one layer."""

    bound: float
    """Proved upper bound; at most the claim if `holds`, else the best that was reached."""
    holds: bool
    how: str
    """E.g. "145 blocks on a 17x17 torus, twists 1/2 and 0"."""
    factored: bool = False
    """By banded.py, not by Gram iteration."""


def prove_dense(weight: Float64, claim: float) -> Proof:
    """‖W‖ ≤ claim for a matrix W [O, I]."""
    if not weight.any():
        return Proof(0.0, claim >= 0, "zero matrix")
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    parts = np.ascontiguousarray(tall)[None, None]
    bound = float(spectral_upper_bounds(parts, claim)[0])
    return Proof(bound, bound <= claim, "one real matrix")


def prove_convolution(
    weight: Float64, axes: tuple[Axis, Axis], claim: float, hint: Torus | None, advance: Advance
) -> Proof:
    """‖zero-padded strided convolution with kernel W [O, I, kh, kw]‖ ≤ claim."""
    if not weight.any():
        return Proof(0.0, claim >= 0, "zero kernel")
    taps = polyphase(weight, axes)
    best = Proof(np.inf, False, "nothing")
    if hint is not None and not hint.is_closed:
        if is_valid(hint, axes) and is_feasible(taps, axes, hint):
            bound = bound_on(taps, axes, hint, claim, advance)
            best = Proof(bound, bound <= claim, str(hint), factored=True)
            if best.holds:
                return best
        hint = None
    for torus in _candidates(axes, hint):
        proof = prove_on(taps, axes, torus, claim, advance)
        if proof.holds:
            return proof
        best = min(best, proof, key=lambda tried: tried.bound)
    return best


def is_valid(torus: Torus, axes: tuple[Axis, Axis]) -> bool:
    """Whether the theorem holds on `torus`, and it is not absurdly large."""
    sizes = all(
        size is None or axis.least_torus <= size <= 2 * axis.least_torus + 8
        for axis, size in zip(axes, torus.sizes, strict=True)
    )
    return sizes and all(
        0 <= twist < 1 and twist.denominator <= LARGEST_DENOMINATOR for twist in torus.twists
    )


def _candidates(axes: tuple[Axis, Axis], hint: Torus | None) -> list[Torus]:
    """The hinted torus if it is valid, then the half-twists of the least one."""
    least = (axes[0].least_torus, axes[1].least_torus)
    twists = [
        (first, second)
        for first in (HALVES if axes[0].taps > 1 else HALVES[:1])
        for second in (HALVES if axes[1].taps > 1 else HALVES[:1])
    ]
    tori = [Torus(least, pair) for pair in reversed(twists)]
    if hint is None or not is_valid(hint, axes):
        return tori
    return [hint, *(torus for torus in tori if torus != hint)]


def prove_on(
    taps: Float64, axes: tuple[Axis, Axis], torus: Torus, claim: float, advance: Advance
) -> Proof:
    """Try one torus; stop at the first block whose bound stays above the claim."""
    points = frequencies(axes, torus)
    error = block_error(taps)
    # Low enough that bound + error, rounded up, still meets the claim.
    target = (claim - error) * (1 - 2.0**-47)
    how = f"{len(points)} blocks on a {torus}" if len(points) > 1 else "one block"
    largest, done = 0.0, 0
    for parts in frequency_blocks(taps, axes, points):
        if not parts[:, 1].any():
            parts = parts[:, :1]
        bounds = spectral_upper_bounds(parts, target)
        largest = max(largest, float((bounds + error).max()) * GROW)
        if not largest <= claim:
            return Proof(largest, False, how)
        done += len(parts)
        advance(done, len(points))
    return Proof(largest, True, how)
