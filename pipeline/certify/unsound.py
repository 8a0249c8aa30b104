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
from pipeline.layers.activation import ExportedActivation
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.network import ExportedNetwork
from pipeline.layers.residual import ExportedResidual
from pipeline.layers.slope_residual import ExportedSlopeResidual

STEPS = 200
"""Most products WᵀW v for a layer."""
TOLERANCE = 1e-6
"""Converged when the estimate moves by less than this share in each of `PATIENCE` steps; a smaller
one would drown in float32."""
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

    def radii(self, scores: Floats, lipschitz: float) -> Floats:
        """[B] -> [B], what `scores` means as radii for an estimate of the trunk's constant."""
        return unsound_radii(scores, lipschitz)

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
    """Converged power iteration on the linear part W of one layer, in float32.

    As Lanczos does it: the products WᵀW v of a power iteration are kept, and the estimate is the
    largest over all that they span. It is never lower than that of the plain iteration, and there
    in a tenth of the products. Only the layer's forward and its derivative are used, so any affine
    kind will do; a residual block is 1 + the product of its two convolutions, as papers have it. A
    layer that they call 1-Lipschitz by design (MinMax, a Convex Potential Layer) is taken at their
    word.
    """
    if isinstance(layer, ExportedActivation):
        return layer.slopes.most
    if isinstance(layer, ExportedSlopeResidual):
        return layer.estimate()
    if isinstance(layer, ExportedResidual):
        return 1 + math.prod(power_iteration_norm(each) for each in layer.convolutions())
    if layer.presumed_lipschitz is not None:
        return layer.presumed_lipschitz
    size = math.prod(layer.input_shape)
    steps = min(STEPS, size)
    with torch.no_grad():
        offset = layer.forward(torch.zeros(1, *layer.input_shape))
    basis = torch.zeros(steps, size)  # orthonormal rows
    start = torch.randn(size, generator=torch.Generator().manual_seed(SEED))
    basis[0] = start / torch.linalg.vector_norm(start)
    tridiagonal = np.zeros((steps, steps))
    estimate, calm = 0.0, 0
    for step in range(steps):
        vector = basis[step].reshape(1, *layer.input_shape).clone().requires_grad_()
        image = layer.forward(vector) - offset
        product = torch.autograd.grad(image, vector, image.detach())[0].flatten()
        tridiagonal[step, step] = basis[step] @ product
        before = estimate
        estimate = math.sqrt(max(0.0, np.linalg.eigvalsh(tridiagonal)[-1]))
        calm = calm + 1 if abs(estimate - before) <= TOLERANCE * estimate else 0
        known = basis[: step + 1]
        for _ in range(2):  # the second time takes away what float32 left the first time
            product = product - known.T @ (known @ product)
        length = float(torch.linalg.vector_norm(product))
        if calm == PATIENCE or step + 1 == steps or length <= TOLERANCE * estimate**2:
            break
        basis[step + 1] = product / length
        tridiagonal[step, step + 1] = tridiagonal[step + 1, step] = length
    return estimate
