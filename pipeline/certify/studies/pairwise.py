"""CRM's Table 2: mean pairwise Lipschitz constants, naive against LipLT, and three ways to pair.

    L_ij of f_i − f_j directly;   L_i + L_j of the two logits;   √2·L of the whole network

Naive: the product of the layers' norms. Improved: Theorem 3. Both are proved bounds; a certificate
by `liplt` holds the norms of all products, so nothing is proved twice.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.certify.certificate import certificate_in, load_network, read_certificate
from pipeline.certify.residual_stages import is_residual
from pipeline.certify.stages import stages_of
from pipeline.certify.studies.tables import Row
from pipeline.lipschitz.bound import NormBound
from pipeline.lipschitz.compose import product_upper
from pipeline.lipschitz.dense import dense_norm_bound
from pipeline.lipschitz.exact_map import rows_through
from pipeline.lipschitz.liplt_bound import head_constants, liplt_bound
from pipeline.lipschitz.pairwise import pairwise_distance_upper
from pipeline.lipschitz.rounding import Float64, add_up, mul_up
from pipeline.lipschitz.wide import wide_norm_bound


def pairwise_constants(directory: Path) -> list[Row]:
    """The two rows of a network certified by `liplt`.

    Args:
        directory: its certificate, or the run that ended with it.

    Raises:
        ValueError: a certificate by another method, or of a residual network.
    """
    place = certificate_in(directory)
    certificate = read_certificate(place)
    if certificate.margins.get("method") != "liplt":
        raise ValueError(
            f"{directory} was not certified by liplt: set certification.method liplt and certify"
        )
    network = load_network(place)
    if is_residual(network):
        raise ValueError(
            f"{directory} is a residual network; CRM's Table 2 is made for networks without "
            "(cnn, mlp): leave it out"
        )
    stages = stages_of(network)
    proved = {
        (claim["last"], claim["first"]): NormBound(
            claim["bound"], claim["method"], claim["evidence"]
        )
        for claim in certificate.margins["products"]
    }
    bound = liplt_bound(stages.maps, stages.slopes, stages.rows, proved)
    through = rows_through(stages.maps, stages.rows)
    whole = [_norm(matrix, error) for matrix, error in through]
    improved = float(head_constants(whole, bound.constants, stages.slopes))
    steep = product_upper([layer["bound"] for layer in certificate.layers])
    rows = network.head.weight.astype(np.float64)
    distances = mul_up(pairwise_distance_upper(rows), steep)
    lengths = mul_up(np.linalg.norm(rows, axis=1) * (1 + 1e-12), steep)
    naive = mul_up(dense_norm_bound(rows).value, steep)
    return [
        _row(directory, "naive", distances, lengths, naive),
        _row(directory, "LipLT", bound.margins, bound.logits, improved),
    ]


def _norm(matrix: Tensor, error: Tensor) -> float:
    """Upper bound of ‖W_L⋯W_j‖ from its computed rows."""
    off = add_up(0.0, *(float(each) for each in error))
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T.contiguous()
    return wide_norm_bound(matrix.clone(), off).value


def _row(directory: Path, method: str, pairs: Float64, each: Float64, whole: float) -> Row:
    first, second = np.triu_indices(len(each), 1)
    return {
        "network": str(directory),
        "method": method,
        "L_ij": float(pairs[first, second].mean()),
        "L_i + L_j": float((each[first] + each[second]).mean()),
        "√2·L": math.sqrt(2) * whole,
    }
