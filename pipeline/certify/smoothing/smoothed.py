"""CERTIFY of Cohen et al. (2019), Section 3.2.2, with the theorem that it rests on.

Notable: what comes out is probabilistic. The probability is over the noise drawn here, per image:
among many images about α of the radii may be wrong, and nobody can tell which. The smoothed
classifier is an average over infinitely many predictions; no program computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import beta
from torch import Tensor

from pipeline.certify.smoothing.noise import noisy_copies

ABSTAIN = -1


@dataclass(frozen=True)
class Settings:
    """What the guarantee and its cost depend on.

    Raises:
        ValueError: a number out of range.
    """

    sigma: float
    """σ of the noise, in the space of the stored image (values v/255)."""
    samples: int = 100_000
    """N, to bound the probability of the class."""
    selection: int = 100
    """N0, to choose the class; none of them is used again."""
    alpha: float = 0.001
    """α: each radius is wrong with at most this probability."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ValueError(f"--sigma {self.sigma!r}: the deviation of the noise must be positive")
        if min(self.samples, self.selection) < 1:
            raise ValueError("--samples and --selection must be at least 1")
        if not 0 < self.alpha < 1:
            raise ValueError(f"--alpha {self.alpha!r} is no probability between 0 and 1")


@dataclass(frozen=True)
class Smoothed:
    """The outcome for one image."""

    predict: int
    """The class, or ABSTAIN."""
    radius: float
    """σΦ⁻¹(p_A); 0 where it abstains."""
    count: int
    """Of the N samples in the class that was chosen."""
    lower: float
    """The lower bound of p_A, at confidence 1 − α."""


class SmoothedClassifier:
    """g(x) = the class that f gives most often to x + N(0, σ²I).

    Args:
        classify: f, [n, C, H, W] float32 -> [n] classes.
        num_classes: K.
        settings: σ, N, N0, α, seed.
    """

    def __init__(
        self, classify: Callable[[Tensor], Tensor], num_classes: int, settings: Settings
    ) -> None:
        self._classify, self._num_classes, self._settings = classify, num_classes, settings

    def certify(self, image: Tensor, index: int) -> Smoothed:
        """The class of g at an image and a radius within which it stays, with probability 1 − α.

        Theorem 1 (Cohen et al. 2019): if P(f(x + noise) = A) ≥ p > 1/2, then g(x + d) = A for every
        ‖d‖₂ < σΦ⁻¹(p). (Theorem 1 with 1 − p for the runner-up, as Section 3.2.2 uses it.)

        A is chosen by N0 samples. Of N fresh ones k are in A; p is the Clopper-Pearson lower bound
        for k of N, not above the true probability with confidence 1 − α. If p ≤ 1/2 it abstains.

        Args:
            image: [C, H, W] float32 in [0, 1].
            index: in its data set, for the noise.
        """
        wanted = self._settings
        chosen = int(self._counts(image, index, wanted.selection, "selection").argmax())
        count = int(self._counts(image, index, wanted.samples, "estimation")[chosen])
        lower = clopper_pearson_lower(count, wanted.samples, wanted.alpha)
        if not lower > 0.5:
            return Smoothed(ABSTAIN, 0.0, count, lower)
        return Smoothed(chosen, wanted.sigma * float(ndtri(lower)), count, lower)

    @torch.no_grad()
    def _counts(self, image: Tensor, index: int, samples: int, purpose: str) -> np.ndarray:
        """How often each class comes out: [K]."""
        counts = torch.zeros(self._num_classes, dtype=torch.int64, device=image.device)
        wanted = self._settings
        for copies in noisy_copies(image, wanted.sigma, samples, wanted.seed, index, purpose):
            counts += torch.bincount(self._classify(copies), minlength=self._num_classes)
        return counts.cpu().numpy()


def clopper_pearson_lower(count: int, samples: int, alpha: float) -> float:
    """The p with P(at least `count` of `samples`) = α: one-sided (Clopper & Pearson 1934)."""
    return float(beta.ppf(alpha, count, samples - count + 1)) if count else 0.0
