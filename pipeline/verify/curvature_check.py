"""The rows of a curvature certificate against the pixels: logits as ever, radii by duality."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pipeline.verify.curvature import CurvatureProver
from pipeline.verify.forward import Forward
from pipeline.verify.head import HeadDistances
from pipeline.verify.logits import LogitCheck
from pipeline.verify.outward import Float64
from pipeline.verify.refusal import require
from pipeline.verify.rows import Row

DELTA_ROOM = 1000.0
"""Certifier and verifier bound the same sums; theirs was 1.3 to 1.6 times ours in networks seen."""


class CurvatureCheck(LogitCheck):
    """`LogitCheck` whose radii are proved whole: nothing of a radius is left to tolerance."""

    def __init__(
        self,
        prover: CurvatureProver,
        forward: Forward,
        distances: HeadDistances,
        lipschitz_bound: float,
        epsilons: dict[str, Fraction],
    ) -> None:
        super().__init__(forward, distances, lipschitz_bound, epsilons)
        self._prover = prover
        self._proved = 0
        self._rounding: dict[int, Float64] = {}

    def summary(self) -> str:
        """How many radii were proved, and how close the margins came."""
        return (
            f"margins differ by {self.worst_margin:.1e} at most; {self._proved} radii proved here "
            "against all other classes"
        )

    def _check_slice(self, rows: list[Row], pixels: np.ndarray) -> None:
        super()._check_slice(rows, pixels)
        chosen = [number for number, row in enumerate(rows) if row.radius > 0]
        if not chosen:
            return
        nothing = np.zeros(self._forward.network.num_classes)
        rounding = [self._rounding.pop(rows[number].index, nothing) for number in chosen]
        for number in chosen:
            require(rows[number].correct, f"{rows[number]} has a radius and is not correct")
        failed = self._prover.unproved(
            pixels[chosen],
            np.array([rows[number].predict for number in chosen]),
            np.array([rows[number].radius for number in chosen]),
            np.array([rows[number].radius_float for number in chosen]),
            np.array(rounding),
        )
        for number, rival in zip(chosen, failed, strict=True):
            row = rows[number]
            require(
                rival < 0,
                f"{row} has the radius {row.radius!r} and the radius_float {row.radius_float!r}, "
                f"one of which is not proved against class {rival}",
            )
        self._proved += len(chosen)

    def _check_row(self, row: Row, margins: Float64, deltas: Float64) -> None:
        """As ever; and no delta beyond any rounding, which a radius would show in other methods."""
        super()._check_row(row, margins, deltas)
        own = float(deltas[row.binding])
        require(
            row.delta <= own * DELTA_ROOM,
            f"{row} has the delta {row.delta!r}, but its rounding is bounded by {own!r}",
        )

    def _check_radius(self, row: Row, margins: Float64, deltas: Float64) -> None:
        """Nothing: margins and constants do not bound these radii."""

    def _check_program(
        self, row: Row, margins: Float64, deltas: Float64, balls: list[Float64]
    ) -> None:
        """Keeps the rounding within radius_float, for the proof by duality."""
        self._rounding[row.index] = balls[-1]
