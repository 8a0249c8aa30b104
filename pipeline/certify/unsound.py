"""What most papers report: converged power iteration and float32 logits. Not a certificate.

Notable: power iteration approaches a norm from below and float32 rounds a margin by an unknown
amount, so these radii may be too large. They are computed to publish the difference: `vra_unsound`
beside `vra` in a certificate.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.certify.arithmetic import SLICE, conventional_arithmetic
from pipeline.certify.radius import Floats
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.network import ExportedNetwork

ITERATIONS = 500
"""Most iterations, as many as the published code uses at evaluation."""
TOLERANCE = 1e-7
"""Converged when the estimate grows by less than this share in each of `PATIENCE` iterations."""
PATIENCE = 5
SEED = 0


class UnsoundReference:
    """Float32 margins by the usual recipe, for the same exported network."""

    def __init__(self, network: ExportedNetwork, device: torch.device | None = None) -> None:
        self.network = network
        self.device = device or torch.device("cpu")
        rows = torch.from_numpy(np.asarray(network.head.weight, dtype=np.float32))
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        self._distances = distances.to(self.device)  # [K, K]

    @torch.no_grad()
    def scores(self, images: Tensor, labels: Tensor) -> Floats:
        """[B, C, H, W] uint8, [B] -> [B]: min over i ≠ y of (f_y − f_i)/‖w_y − w_i‖, at least 0.

        Divided by the Lipschitz constant of the trunk this is a radius (`unsound_radii`).
        """
        with conventional_arithmetic():
            parts = [
                self._scores(some_images.to(self.device), some_labels.to(self.device))
                for some_images, some_labels in zip(
                    images.split(SLICE), labels.split(SLICE), strict=True
                )
            ]
        return torch.cat(parts).cpu().numpy().astype(np.float64)

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.network.logits(self.network.trunk(images.to(torch.float32) / 255))
        margins = logits.gather(1, labels[:, None]) - logits  # [B, K]
        quotients = margins / self._distances[labels]
        quotients.scatter_(1, labels[:, None], math.inf)
        return quotients.nan_to_num(nan=0.0, posinf=math.inf).amin(1).clamp(min=0)


def unsound_radii(scores: Floats, lipschitz: float) -> Floats:
    """[B] -> [B], scores divided by an estimate of the trunk's Lipschitz constant."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scores > 0, scores / np.float64(lipschitz), 0.0)


def power_iteration_norm(layer: ExportedLayer) -> float:
    """Power iteration on the linear part of one layer, in float32.

    The layer's own forward and its derivative are all that is used, so any affine kind will do. An
    exact layer (MinMax, flatten) is a contraction by comparison and counts 1.
    """
    if layer.rounding() is None:
        return 1.0
    generator = torch.Generator().manual_seed(SEED)
    vector = torch.randn(1, *layer.input_shape, generator=generator)
    with torch.no_grad():
        offset = layer.forward(torch.zeros_like(vector))
    estimate, calm = 0.0, 0
    for _ in range(ITERATIONS):
        vector = (vector / torch.linalg.vector_norm(vector)).requires_grad_()
        image = layer.forward(vector) - offset
        before, estimate = estimate, float(torch.linalg.vector_norm(image.detach()))
        if estimate == 0:
            return 0.0
        calm = calm + 1 if abs(estimate - before) <= TOLERANCE * estimate else 0
        if calm == PATIENCE:
            break
        (vector,) = torch.autograd.grad(image, vector, image.detach() / estimate)
    return estimate
