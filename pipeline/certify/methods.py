"""The three ways to prove a margin, and what belongs to each: claims, certifier, usual recipe.

| method | the margin f_j − f_i inside the ball | for |
|---|---|---|
| product | ≥ m − Λ·‖w_j − w_i‖·r, Λ the product of the layers' norms | every network |
| liplt | ≥ m − K_ji·r, K of LipLT (Theorem 3) | cnn, mlp, slope_resnet |
| curvature | > 0 by a convex dual problem (CRC, Theorem 1) | mlp, smooth |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.certify.curvature_certifier import CurvatureCertifier, CurvatureReference
from pipeline.certify.liplt_certifier import LipLTCertifier, LipLTReference
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.certify.residual_stages import (
    ResidualLipLTReference,
    is_residual,
    prove_residual,
    residual_stages_of,
)
from pipeline.certify.stages import dense_stages_of, stages_of
from pipeline.certify.unsound import UnsoundReference
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.curvature_bound import curvature_bounds
from pipeline.lipschitz.liplt_bound import liplt_bound
from pipeline.progress import ProgressBar

PRODUCT, LIPLT, CURVATURE = "product", "liplt", "curvature"
METHODS = (PRODUCT, LIPLT, CURVATURE)
INSTEAD = {LIPLT: "product", CURVATURE: "liplt or product"}


def check_method(method: str, network: ExportedNetwork) -> None:
    """Refuse a method that does not exist or is not for this network.

    Raises:
        ValueError: naming the layer.
    """
    if method not in METHODS:
        raise ValueError(
            f"certification.method is {method!r}, expected one of {', '.join(METHODS)}"
        )
    if method == PRODUCT:
        return
    try:
        if method == CURVATURE:
            require_smooth(network)
        elif is_residual(network):
            residual_stages_of(network)
        else:
            stages_of(network)
    except ValueError as error:
        raise ValueError(
            f"certification.method {method}: {error}; take {INSTEAD[method]}"
        ) from None


def require_smooth(network: ExportedNetwork) -> None:
    """Refuse a network that curvature is not bounded for.

    Raises:
        ValueError: naming the layer, if one is why.
    """
    if any(slope.curvature is None for slope in dense_stages_of(network).slopes):
        raise ValueError("it is for fully connected networks with softplus, sigmoid or tanh")


def prove_margins(
    method: str,
    network: ExportedNetwork,
    bounds: Sequence[NormBound],
    products: dict[tuple[int, int], NormBound] | None = None,
) -> Any:
    """What the method has to prove once for the whole network; None for `product`.

    Args:
        method: of `METHODS`.
        network: to be certified.
        bounds: of its layers.
        products: for `liplt`, as `prove_products` returns them; proved here without.
    """
    if method == PRODUCT:
        return None
    if method == LIPLT and is_residual(network):
        return prove_residual(network)
    if method == LIPLT:
        stages = stages_of(network)
        return liplt_bound(stages.maps, stages.slopes, stages.rows, products)
    stages = dense_stages_of(network)
    norms = [bounds[number].value for number in stages.numbers]
    weights = [each.weight for each in stages.maps]
    pairs = len(stages.rows) * (len(stages.rows) - 1)
    with ProgressBar("curvature", total=pairs, unit="pair") as bar:
        return curvature_bounds(weights, norms, stages.slopes, stages.rows, bar.advance)


def build_certifier(
    method: str,
    network: ExportedNetwork,
    bounds: Sequence[NormBound],
    claims: Any,
    device: torch.device | None = None,
) -> LipschitzCertifier:
    """The certifier of a method from what `prove_margins` proved."""
    if method == LIPLT:
        return LipLTCertifier(network, bounds, claims, device)
    if method == CURVATURE:
        return CurvatureCertifier(network, bounds, claims, device)
    return LipschitzCertifier(network, bounds, device)


def build_reference(
    method: str, network: ExportedNetwork, claims: Any, device: torch.device | None = None
) -> UnsoundReference:
    """The usual recipe of the method's own paper, for `vra_unsound`."""
    if method == LIPLT and is_residual(network):
        return ResidualLipLTReference(network, device)
    if method == LIPLT:
        return LipLTReference(network, device)
    if method == CURVATURE:
        return CurvatureReference(network, claims.table, device)
    return UnsoundReference(network, device)
