"""Searches for points that fall, on images of a certificate.

Notable:
- A search takes float32 gradients and proposes points. Whether an image falls is decided in float64
  on the exported network: the point is scaled into the ball, its distance is computed with exact
  rationals of the pixels, and the label must no longer be strictly first.
- An image that falls within its certified radius refutes the certificate; one that falls elsewhere
  lowers the empirical accuracy, which stands beside VRA in the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.certify.attacks.apgd import apgd, apgd_targeted
from pipeline.certify.attacks.ball import as_radii, norms
from pipeline.certify.attacks.losses import cross_entropy, margin_loss, margins
from pipeline.certify.attacks.pgd import pgd
from pipeline.certify.lipschitz_certifier import PIXELS
from pipeline.layers.network import ExportedNetwork

Advance = Callable[[str, int], None]
"""Called with what is being done and how many images of it are finished."""
CURVE_STEPS = 10
"""PGD-10, as in the figures of the papers (CPL, Figure 2)."""
INSIDE = 1 - 2.0**-40
"""Proposed points are scaled to this share of the radius, which covers the rounding of doing so."""


@dataclass(frozen=True)
class Settings:
    """How hard to try."""

    steps: int = 50
    """Of each search."""
    restarts: int = 5
    """Random starts of PGD."""
    boxed: bool = True
    """Points must lie in [0, 1], as is usual; certificates also cover those outside."""
    batch: int = 128
    """Images at a time."""
    seed: int = 0
    slope_steps: int = 100
    """Gradients of each search for a steep place."""


@dataclass(frozen=True)
class Fall:
    """An image that fell."""

    index: int
    radius: float
    """Of the ball that was searched."""
    search: str
    distance: float
    """Of the point, not above `radius`."""
    margin: float
    """f_y − the largest other logit there, float64."""


class Assault:
    """The searches, on one network and some images that it classifies correctly.

    Args:
        network: the exported function.
        pixels: [B, C, H, W] uint8.
        labels: [B].
        settings: how hard to try.
        advance: told of progress.
    """

    def __init__(
        self,
        network: ExportedNetwork,
        pixels: Tensor,
        labels: Tensor,
        settings: Settings,
        advance: Advance = lambda what, count: None,
    ) -> None:
        self.network, self.pixels, self.labels = network, pixels, labels
        self.settings, self.advance = settings, advance
        self._generator = torch.Generator().manual_seed(settings.seed)

    def searches(self) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
        """By name: from centres (float32), labels and radii to points."""
        settings = self.settings
        common: dict[str, Any] = {
            "steps": settings.steps,
            "boxed": settings.boxed,
            "generator": self._generator,
        }

        def plain(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
            return pgd(
                self._logits, x, y, radius, margin_loss(y), restarts=settings.restarts, **common
            )

        def auto(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
            return apgd(self._logits, x, y, radius, cross_entropy(y), **common)

        def targeted(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
            return apgd_targeted(self._logits, x, y, radius, **common)

        return {"PGD": plain, "APGD-CE": auto, "APGD-T": targeted}

    def fallen(self, indices: NDArray[np.int64], radii: NDArray[np.float64]) -> list[Fall]:
        """Try all searches on the images `indices`, each in its ball; one fall an image."""
        falls: dict[int, Fall] = {}
        for name, search in self.searches().items():
            left = np.array([i for i in range(len(indices)) if int(indices[i]) not in falls], int)
            for part in np.array_split(left, max(1, -(-len(left) // self.settings.batch))):
                if len(part):
                    for fall in self._try(name, search, indices[part], radii[part]):
                        falls[fall.index] = fall
                self.advance(name, len(part))
        return [falls[index] for index in sorted(falls)]

    def pgd10(self, epsilon: float) -> float:
        """Share of the images that one run of PGD-10 with cross-entropy leaves correct."""
        standing = 0
        rows = torch.arange(len(self.labels))
        for part in rows.split(self.settings.batch):
            x, y = self._centers(part).float(), self.labels[part]
            radius = torch.full((len(part),), epsilon, dtype=torch.float64)
            points = pgd(
                self._logits, x, y, radius, cross_entropy(y),
                steps=CURVE_STEPS, restarts=1, boxed=self.settings.boxed, generator=self._generator,
            )  # fmt: skip
            with torch.no_grad():
                standing += int((margins(self._logits(points), y) > 0).sum())
            self.advance("PGD-10", len(part))
        return standing / max(len(self.labels), 1)

    def _try(
        self,
        name: str,
        search: Callable[[Tensor, Tensor, Tensor], Tensor],
        indices: NDArray[np.int64],
        radii: NDArray[np.float64],
    ) -> list[Fall]:
        rows, radius = torch.from_numpy(indices), torch.from_numpy(radii)
        center, labels = self._centers(rows), self.labels[rows]
        points = search(center.float(), labels, radius).double()
        move = points - center
        move = move * (as_radii(radius * INSIDE, move) / norms(move).clamp(min=1e-300)).clamp(max=1)
        points = center + move
        with torch.no_grad():
            margin = margins(self.network.logits(self.network.trunk(points)), labels)
        found = []
        for row in torch.nonzero(~(margin > 0))[:, 0].tolist():
            squared = squared_distance(self.pixels[rows[row]], points[row])
            if squared <= Fraction(float(radius[row])) ** 2:
                reached = math.sqrt(squared)
                place = (int(indices[row]), float(radius[row]))
                found.append(Fall(*place, name, reached, float(margin[row])))
        return found

    def _centers(self, rows: Tensor) -> Tensor:
        return PIXELS[self.pixels[rows].long()]

    def _logits(self, x: Tensor) -> Tensor:
        return self.network.logits(self.network.trunk(x))


def squared_distance(pixels: Tensor, point: Tensor) -> Fraction:
    """‖x' − v/255‖² of one image, exactly."""
    pairs = zip(point.flatten().tolist(), pixels.flatten().tolist(), strict=True)
    return sum(((Fraction(a) - Fraction(v, 255)) ** 2 for a, v in pairs), Fraction(0))
