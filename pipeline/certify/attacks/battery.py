"""The whole battery of attacks: every search at every ε, every certified image at its own radius.

Notable: only images that are classified correctly are attacked; the others count as fallen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.certify.attacks.assault import Advance, Assault, Fall, Settings
from pipeline.certify.attacks.slopes import layer_slope, trunk_slope
from pipeline.certify.lipschitz_certifier import PIXELS
from pipeline.certify.radius import exceeds
from pipeline.layers.network import ExportedNetwork
from pipeline.types import Epsilon


def battery(
    network: ExportedNetwork,
    pixels: Tensor,
    labels: Tensor,
    correct: NDArray[np.bool_],
    radius: NDArray[np.float64],
    epsilons: Sequence[Epsilon],
    curve: Sequence[float],
    bounds: Sequence[float],
    settings: Settings,
    advance: Advance = lambda what, count: None,
) -> dict[str, Any]:
    """All attacks on images of a certificate; plain JSON values.

    Args:
        network: the exported function.
        pixels: [B, C, H, W] uint8.
        labels: [B].
        correct: [B], their rows of images.tsv.
        radius: [B], likewise.
        epsilons: to attack at.
        curve: distances of the PGD-10 curve.
        bounds: the certified constant of each layer.
        settings: how hard to try.
        advance: told of progress.
    """
    count = len(labels)
    force = Assault(network, pixels, labels, settings, advance)
    rows = np.flatnonzero(correct)
    at: dict[str, Any] = {}
    refuting: list[Fall] = []
    for epsilon in epsilons:
        size = float(epsilon)
        falls = force.fallen(rows, np.full(len(rows), size))
        certified = {int(row) for row in rows[exceeds(radius[rows], epsilon)]}
        refuting += [fall for fall in falls if fall.index in certified]
        at[epsilon.text] = {
            "empirical_accuracy": (len(rows) - len(falls)) / count,
            "vra": len(certified) / count,
            "certified": len(certified),
            "certified_fallen": sum(fall.index in certified for fall in falls),
            "fallen": {
                name: sum(fall.search == name for fall in falls) for name in force.searches()
            },
        }
    own = np.flatnonzero(correct & (radius > 0) & np.isfinite(radius))
    at_radius = force.fallen(own, radius[own])
    refuting += at_radius
    standing = Assault(network, pixels[rows], labels[rows], settings, advance)
    points = [[size, standing.pgd10(size) * len(rows) / count] for size in curve]
    return {
        "images": count,
        "settings": asdict(settings),
        "epsilons": at,
        "own_radius": {"certified": len(own), "certified_fallen": len(at_radius)},
        "refuting": [asdict(fall) for fall in refuting],
        "pgd10": points,
        **slopes(network, pixels, bounds, settings, advance),
    }


def slopes(
    network: ExportedNetwork,
    pixels: Tensor,
    bounds: Sequence[float],
    settings: Settings,
    advance: Advance,
) -> dict[str, Any]:
    """Lower bounds of the constants of each layer with weights and of the trunk."""
    layers = []
    for layer, bound in zip(network.layers, bounds, strict=True):
        if layer.tensors():
            lower = layer_slope(layer, settings.slope_steps, 1, settings.seed)
            layers.append({"name": layer.name, "found": lower, "bound": bound})
        advance("slopes", 1)
    images = PIXELS[pixels[: min(8, len(pixels))].long()]
    found = trunk_slope(network, images, (0.1, 1.0, 10.0), settings.slope_steps, settings.seed)
    return {"layers": layers, "trunk": {"found": found}}
