"""Residual networks of LipLT (14) as exported: their stages and the usual recipe."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.certify.radius import Floats
from pipeline.certify.unsound import STEPS, UnsoundReference
from pipeline.layers.activation import ExportedActivation
from pipeline.layers.dense import ExportedDense
from pipeline.layers.flatten import ExportedFlatten
from pipeline.layers.network import ExportedNetwork
from pipeline.layers.slope_residual import ExportedSlopeResidual
from pipeline.lipschitz.exact_map import ExactMap
from pipeline.lipschitz.liplt_bound import LipLTBound
from pipeline.lipschitz.liplt_estimate import Map
from pipeline.lipschitz.residual_estimate import (
    Stage,
    combine,
    residual_norms,
    rows_through,
    start_vectors,
)
from pipeline.lipschitz.residual_liplt import ResidualStage, residual_liplt_bound
from pipeline.lipschitz.slopes import Slopes


def is_residual(network: ExportedNetwork) -> bool:
    """Whether there is a block x + G·φ(Wx + b) in it."""
    return any(isinstance(layer, ExportedSlopeResidual) for layer in network.layers)


def residual_stages_of(network: ExportedNetwork) -> tuple[list[ResidualStage], list[Slopes]]:
    """The stages of a network of dense layers with activations, and blocks.

    Raises:
        ValueError: another layer, or one in a wrong place.
    """
    stages: list[ResidualStage] = []
    slopes: list[Slopes] = []
    for layer in network.layers:
        if isinstance(layer, ExportedSlopeResidual) and len(stages) == len(slopes):
            stages.append(layer.stage())
            slopes.append(layer.slopes)
        elif isinstance(layer, ExportedDense) and len(stages) == len(slopes):
            weight = layer.weight.astype(np.float64)
            stages.append(ResidualStage(ExactMap(weight, weight.shape[1:]), None, skip=False))
        elif isinstance(layer, ExportedActivation) and len(stages) == len(slopes) + 1:
            slopes.append(layer.slopes)
        elif not isinstance(layer, ExportedFlatten):
            raise ValueError(
                f"layer {layer.name!r} ({layer.kind}) stands where LipLT of residual networks "
                "knows none"
            )
    if len(stages) != len(slopes):
        raise ValueError("the trunk does not end with an activation or a block")
    return stages, slopes


def prove_residual(network: ExportedNetwork) -> LipLTBound:
    """(16) for every margin."""
    stages, slopes = residual_stages_of(network)
    rows = network.head.weight.astype(np.float64)
    return residual_liplt_bound(stages, slopes, rows, refine=False)


class ResidualLipLTReference(UnsoundReference):
    """The paper's own reading: float32 margins over (16) by power iteration."""

    def __init__(self, network: ExportedNetwork, device: torch.device | None = None) -> None:
        super().__init__(network, device)
        exact, slopes = residual_stages_of(network)
        stages = [
            Stage(
                _single(each.inner),
                None if each.outer is None else _single(each.outer),
                each.skip,
                slope,
            )
            for each, slope in zip(exact, slopes, strict=True)
        ]
        hidden = [len(stage.inner.weight) for stage in stages]
        vectors = start_vectors(exact[0].inner.inputs, hidden)
        norms = residual_norms(stages, vectors, STEPS, update=False)
        rows = torch.from_numpy(network.head.weight)
        apart = [_distances(part) for part in rows_through(stages, rows)]
        self._distances = combine(norms, slopes, apart)[1].to(self.device)

    def radii(self, scores: Floats, lipschitz: float) -> Floats:
        """The scores: they are divided by the pairwise constants already."""
        return scores


def _single(linear: ExactMap) -> Map:
    return Map(torch.from_numpy(np.float32(linear.weight)), linear.input_shape)


def _distances(rows: Tensor) -> Tensor:
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
