"""The Fréchet distance of two sets of features (Heusel et al. 2017, equation 6), in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.distributed import sum_over_ranks


class Moments:
    """Sums over features, added up as they come; memory does not grow with their number.

    Args:
        sums: [1 + d + d²]: how many, their sum, the sum of their outer products.
    """

    def __init__(self, sums: Tensor) -> None:
        self._sums = sums

    @classmethod
    def empty(cls, features: int, device: torch.device) -> Moments:
        """Of nothing yet."""
        shape = 1 + features + features**2
        return cls(torch.zeros(shape, dtype=torch.float64, device=device))

    def add(self, features: Tensor) -> None:
        """Take in [B, d] float64."""
        count = torch.tensor([float(len(features))], dtype=torch.float64, device=features.device)
        outer = features.T @ features
        self._sums += torch.cat([count, features.sum(0), outer.flatten()])

    def none(self) -> Moments:
        """As many features, of no image."""
        return Moments(torch.zeros_like(self._sums))

    def over_ranks(self) -> Moments:
        """Those of all ranks together. A collective."""
        return Moments(sum_over_ranks(self._sums.clone()))

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """[d], [d, d] on the CPU."""
        sums = self._sums.cpu()
        count = sums[0]
        size = round((len(sums) - 1 + 0.25) ** 0.5 - 0.5)
        mean = sums[1 : 1 + size] / count
        outer = sums[1 + size :].view(size, size) / count
        return mean, outer - torch.outer(mean, mean)


def frechet_distance(one: Moments, other: Moments) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)."""
    (mean1, cov1), (mean2, cov2) = one.mean_and_covariance(), other.mean_and_covariance()
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return max(float(distance), 0.0)
