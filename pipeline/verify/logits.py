"""The claims of every row against logits that are computed anew from the pixels.

For image x with predicted class j, both the certificate's margin m and our own m' differ from the
exact margin M of classes j and i by at most their deltas δ and δ'. A true certificate claims a
radius r with r·K_ji ≤ m − δ ≤ M for every i, hence r·K_ji ≤ m' + δ'. So a row is refused if
  - δ < δ'(1 − 1e-9): the certificate allows its arithmetic less error than the theorem does;
  - |m − m'| > δ + δ' for the binding class;
  - m' < −δ' for some class: another class is certainly first;
  - r·K_ji > m' + δ' for some class i, also where i is not the binding one. What we can prove is
    r·K_ji ≤ m' − δ'; a true claim falls short of that by at most the two roundings 2δ'.
  - δ*(s) + s·K_ji > m' + δ' for the radius s of statement F and some class: δ*(t) is the rounding
    of the two logits anywhere within t of the image, and a true claim has s·K_ji + δ*(s) ≤ m − δ.
And for the totals, which are what a certificate is for, nothing is allowed: an image that is
counted at ε must satisfy m' − δ' > ε·K_ji for every class in *our* numbers, and for statement F
m' − δ' − δ*(ε) > ε·K_ji. So a verified VRA is proved by this program alone, whatever the
certificate's numbers were.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from pipeline.verify.datasets import Images
from pipeline.verify.forward import Forward
from pipeline.verify.head import HeadDistances
from pipeline.verify.outward import GROW, SHRINK, Float64, ceil_float
from pipeline.verify.refusal import Refusal, require
from pipeline.verify.rounding import SLACK, UNIT
from pipeline.verify.rows import Row

OWN_DELTA_ROOM = 1 - 1e-9


class LogitCheck:
    """Checks slices of rows; afterwards knows how close the two computations came.

    Attributes:
        worst_margin: the largest difference of the two margins.
        worst_share: the largest such difference as a share of the two deltas.
        worst_shortfall: the most that a claimed radius exceeds the radius proved here.
    """

    def __init__(
        self,
        forward: Forward,
        distances: HeadDistances,
        lipschitz_bound: float,
        epsilons: dict[str, Fraction],
    ) -> None:
        self._forward = forward
        self._distances = distances
        self._steepest = distances.steepest(lipschitz_bound)  # [K, K] ≥ K_ji
        self._flattest = distances.flattest(lipschitz_bound)  # ≤ any valid K_ji
        self._epsilons = {text: (exact, ceil_float(exact)) for text, exact in epsilons.items()}
        self.worst_margin = 0.0
        self.worst_share = 0.0
        self.worst_shortfall = 0.0

    def check(self, rows: list[Row], images: Images, advance: Callable[[int, int], None]) -> None:
        """Check all rows against all images of the data set.

        Raises:
            Refusal: naming the first image whose row is not true.
        """
        require(len(images) == len(rows), f"the data has {len(images)} images, not {len(rows)}")
        for row in rows:
            label = images.label(row.index)
            require(row.label == label, f"{row} has the label {row.label}, the data says {label}")
        height, width = self._forward.network.input_shape[1:]
        shape = (height, width, self._forward.network.input_shape[0])
        for start in range(0, len(rows), self._forward.slice_size):
            part = rows[start : start + self._forward.slice_size]
            pixels = [images.image(row.index) for row in part]
            for row, image in zip(part, pixels, strict=True):
                require(
                    image.shape == shape,
                    f"{row} is {list(image.shape)} in the data, the network takes {list(shape)}",
                )
            self._check_slice(part, np.stack(pixels))
            advance(start + len(part), len(rows))

    def summary(self) -> str:
        """How close the two computations came, for the table of checks."""
        return (
            f"margins differ by {self.worst_margin:.1e} at most ({100 * self.worst_share:.2g} % of "
            f"what the deltas allow), radii exceed those proved here by {self.worst_shortfall:.1e} "
            "at most"
        )

    def _check_slice(self, rows: list[Row], pixels: np.ndarray) -> None:
        wanted = [[above] * len(rows) for _, above in self._epsilons.values()]
        wanted.append([row.radius_float for row in rows])
        found = self._forward.evaluate(pixels, np.array(wanted))
        predict = np.array([row.predict for row in rows])
        each = np.arange(len(rows))
        with np.errstate(over="ignore", invalid="ignore"):
            margins = found.logits[each, predict][:, None] - found.logits  # [B, K], m'
            deltas = self._pairs(predict, found.error, found.rho)
            deltas = (deltas + UNIT * np.abs(margins)) * SLACK
            balls = [
                self._pairs(predict, error, rho) * SLACK
                for error, rho in zip(found.ball_error, found.ball_rho, strict=True)
            ]  # δ* of every ε and of radius_float, each [B, K]
        finite = np.isfinite(margins) & np.isfinite(deltas)
        for number, row in enumerate(rows):
            if finite[number].all():
                self._check_row(row, margins[number], deltas[number])
                if row.radius_float > 0:
                    inside = [ball[number] for ball in balls]
                    self._check_program(row, margins[number], deltas[number], inside)
            else:
                require(row.radius == 0, f"{row} has a radius, but its logits overflow")
                require(
                    not row.correct or bool(np.isfinite(margins[number]).all()),
                    f"{row} is marked correct, but its logits overflow",
                )

    def _check_row(self, row: Row, margins: Float64, deltas: Float64) -> None:
        """One row against [K] margins m' and deltas δ' of its predicted class."""
        own_margin, own_delta = float(margins[row.binding]), float(deltas[row.binding])
        gap = abs(row.margin - own_margin)
        require(
            gap <= row.delta + own_delta,
            f"{row} has the margin {row.margin!r}, recomputed it is {own_margin!r}",
        )
        require(
            row.delta >= own_delta * OWN_DELTA_ROOM,
            f"{row} has the delta {row.delta!r}, but its rounding is only bounded by {own_delta!r}",
        )
        self.worst_margin = max(self.worst_margin, gap)
        self.worst_share = max(self.worst_share, gap / (row.delta + own_delta))
        others = np.arange(len(margins)) != row.predict
        behind = margins < -deltas
        if behind[others].any():
            winner = int(np.argmin(margins))
            raise Refusal(f"{row} is said to be class {row.predict}, recomputed it is {winner}")
        if row.correct and row.radius > 0:
            self._check_radius(row, margins, deltas)

    def _check_radius(self, row: Row, margins: Float64, deltas: Float64) -> None:
        """The radius of a row against all classes, by our own margins and constants."""
        others = np.arange(len(margins)) != row.predict
        reach = row.radius * self._flattest[row.predict] * SHRINK if row.radius < np.inf else 0.0
        beyond = others & (reach > margins + deltas * GROW)
        if beyond.any():
            rival = int(np.argmax(beyond))
            raise Refusal(
                f"{row} has the radius {row.radius!r}, but class {rival} is nearer than that"
            )
        self._check_counted(row, self._proved_radius(row, margins, deltas))

    def _pairs(self, predict: np.ndarray, error: Float64, rho: Float64) -> Float64:
        """Rounding of f_j − f_i from that of the features [B] and of the rows [B, K]: [B, K]."""
        own = rho[np.arange(len(predict)), predict]
        return self._distances.upper[predict] * error[:, None] + rho + own[:, None]

    def _check_program(
        self, row: Row, margins: Float64, deltas: Float64, balls: list[Float64]
    ) -> None:
        """Statement F of one row: its own radius, and every ε at which it is counted."""
        others = np.arange(len(margins)) != row.predict
        *at_epsilons, at_radius = balls
        reach = row.radius_float * self._flattest[row.predict] * SHRINK
        beyond = others & ~(reach + at_radius * OWN_DELTA_ROOM <= margins + deltas * GROW)
        require(
            not beyond.any(),
            f"{row} has the radius_float {row.radius_float!r}, but within it rounding may decide "
            f"for class {int(np.argmax(beyond))}",
        )
        for (text, (exact, above)), ball in zip(self._epsilons.items(), at_epsilons, strict=True):
            room = (margins - deltas * GROW - ball * GROW) * SHRINK
            needed = above * self._steepest[row.predict] * GROW
            require(
                not Fraction(row.radius_float) > exact or bool((room > needed)[others].all()),
                f"{row} is counted at epsilon {text} in statement F, which our own numbers do not "
                "prove",
            )

    def _proved_radius(self, row: Row, margins: Float64, deltas: Float64) -> float:
        """A radius that our own numbers prove, a few units in the last place below the largest."""
        room = margins - deltas
        room = np.where(room > 0, room * SHRINK, room * GROW)
        steepest = self._steepest[row.predict]
        with np.errstate(divide="ignore", invalid="ignore"):
            radii = np.where(steepest > 0, room / steepest, np.where(room > 0, np.inf, -np.inf))
        radii[row.predict] = np.inf
        return float(radii.min()) * SHRINK

    def _check_counted(self, row: Row, proved: float) -> None:
        if proved < row.radius < np.inf:
            self.worst_shortfall = max(self.worst_shortfall, row.radius - proved)
        for text, (exact, above) in self._epsilons.items():
            counted = row.radius == np.inf or Fraction(row.radius) > exact
            require(
                not counted or proved > above,
                f"{row} is counted at epsilon {text}, recomputed its radius is only {proved!r}",
            )
