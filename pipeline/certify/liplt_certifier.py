"""The Lipschitz certifier with LipLT's pairwise constants in place of Λ·‖w_j − w_i‖."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.certify.radius import Floats
from pipeline.certify.stages import stages_of
from pipeline.certify.unsound import STEPS, UnsoundReference
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.liplt_bound import LipLTBound
from pipeline.lipschitz.liplt_estimate import (
    Map,
    combine,
    partial_norms,
    rows_through,
    start_vectors,
)


class LipLTCertifier(LipschitzCertifier):
    """Certifies as `LipschitzCertifier` does, with K_ji the lesser of LipLT's and the product's.

    Statement R is the same: it asks of K_ji only that it is not below the Lipschitz constant of
    f_j − f_i, which both are (docs/small_networks.md §1).
    """

    def __init__(
        self,
        network: ExportedNetwork,
        bounds: Sequence[NormBound],
        proof: LipLTBound,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(network, bounds, device)
        self.proof = proof
        self.margin_lipschitz = np.minimum(self.margin_lipschitz, proof.margins)

    def margin_evidence(self) -> dict[str, Any]:
        """The claimed norms of all products; everything else follows from them."""
        return {
            "method": "liplt",
            "products": [
                {
                    "first": first,
                    "last": last,
                    "bound": bound.value,
                    "method": bound.method,
                    "evidence": bound.evidence,
                }
                for (last, first), bound in self.proof.products.items()
            ],
        }


class LipLTReference(UnsoundReference):
    """The paper's own reading: float32 margins over constants by power iteration (200 steps)."""

    def __init__(self, network: ExportedNetwork, device: torch.device | None = None) -> None:
        super().__init__(network, device)
        stages = stages_of(network)
        maps = [
            Map(
                torch.from_numpy(np.float32(each.weight)),
                each.input_shape,
                each.stride,
                each.padding,
            )
            for each in stages.maps
        ]
        vectors = [
            start_vectors(len(maps), number, each.input_shape) for number, each in enumerate(maps)
        ]
        norms = partial_norms(maps, vectors, STEPS, update=False)
        rows = torch.from_numpy(np.float32(stages.rows))
        apart = [
            torch.cdist(part, part, compute_mode="donot_use_mm_for_euclid_dist")
            for part in rows_through(maps, rows)
        ]
        self._distances = combine(norms, stages.slopes, apart)[1].to(self.device)

    def radii(self, scores: Floats, lipschitz: float) -> Floats:
        """The scores: they are divided by the pairwise constants already."""
        return scores
