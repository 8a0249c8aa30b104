"""What certification of images costs beside plain float64 inference of the same images.

Notable: the two take turns on the same slices, bounds proved beforehand, so that whatever else runs
on the machine slows both; CPU seconds of the process are told beside wall seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.certify.arithmetic import SLICE, conventional_arithmetic, single_threaded_mathematics
from pipeline.certify.certificate import load_network, read_certificate
from pipeline.certify.lipschitz_certifier import PIXELS, LipschitzCertifier
from pipeline.certify.methods import PRODUCT
from pipeline.certify.unsound import UnsoundReference
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.bound import NormBound


@dataclass(frozen=True)
class Cost:
    """Seconds an image, medians over the rounds, of one thread."""

    what: str
    wall: float
    cpu: float


def measure_certification(directory: Path, images: int, rounds: int) -> list[Cost]:
    """Costs of inference, of certification, and of certification with the usual recipe beside it.

    Args:
        directory: a certificate, whose network and bounds are taken; its images are not needed.
        images: random ones, as many a round.
        rounds: turns.

    Raises:
        ValueError: no intact certificate of the method product, or `images` or `rounds` below 1.
    """
    if min(images, rounds) < 1:
        raise ValueError(f"--images {images} and --rounds {rounds} must be at least 1")
    certificate, network = read_certificate(directory), load_network(directory)
    if certificate.method != PRODUCT:
        raise ValueError(
            f"{directory} is certified by {certificate.method}, and this table is of product"
        )
    bounds = [NormBound(layer["bound"], layer["method"]) for layer in certificate.layers]
    generator = torch.Generator().manual_seed(0)
    shape = (images, *network.input_shape)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.zeros(images, dtype=torch.int64)
    return _in_turns(contenders(network, bounds, pixels, labels), images, rounds)


def contenders(
    network: ExportedNetwork, bounds: list[NormBound], pixels: Tensor, labels: Tensor
) -> dict[str, Callable[[], object]]:
    """What is compared, by name."""
    certify = LipschitzCertifier(network, bounds)
    usual = UnsoundReference(network)

    def inference() -> None:
        with torch.no_grad():
            for part in pixels.split(SLICE):
                network.logits(network.trunk(PIXELS[part.long()]))

    return {
        "float64 inference": inference,
        "certification": lambda: certify.certify(pixels, labels),
        "float32 margins, for the gap": lambda: usual.scores(pixels, labels),
    }


def _in_turns(functions: dict[str, Callable[[], object]], images: int, rounds: int) -> list[Cost]:
    walls: dict[str, list[float]] = {name: [] for name in functions}
    cpus: dict[str, list[float]] = {name: [] for name in functions}
    with single_threaded_mathematics(), conventional_arithmetic():
        for turn in range(rounds + 1):
            for name, function in functions.items():
                wall, cpu = time.perf_counter(), time.process_time()
                function()
                if turn:  # the first warms the caches
                    walls[name].append((time.perf_counter() - wall) / images)
                    cpus[name].append((time.process_time() - cpu) / images)
    return [
        Cost(name, statistics.median(walls[name]), statistics.median(cpus[name]))
        for name in functions
    ]


def table(costs: list[Cost]) -> str:
    """The costs, and their ratios to the first of them in CPU seconds."""
    lines = [f"{'':<32}{'ms an image':>12}{'CPU ms':>10}{'of inference':>14}"]
    for cost in costs:
        ratio = cost.cpu / costs[0].cpu
        lines.append(
            f"{cost.what:<32}{1e3 * cost.wall:>12.3f}{1e3 * cost.cpu:>10.3f}{ratio:>14.3f}"
        )
    return "\n".join(lines)


def record(costs: list[Cost]) -> list[dict[str, Any]]:
    """Plain JSON values."""
    return [asdict(cost) for cost in costs]
