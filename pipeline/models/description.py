"""What a network is made of, layer by layer: shapes, parameters, FLOPs, memory, time.

Notable:
- Counting needs no weights: with torch's fake tensors, which have shapes only, a network of 275 M
  parameters is described in a moment.
- FLOPs are those of the layer's own products (2 per multiply-add), folding included: AOL's and
  BCOP's kernels are computed in every forward. The estimates of a training step are apart.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.network import LipschitzNetwork
from pipeline.models.registry import build_model

FLOAT32 = 4
"""Bytes."""


@dataclass(frozen=True)
class LayerFacts:
    """One layer of the trunk, or the head."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    """Of one image."""

    @property
    def activation_bytes(self) -> int:
        """Of its float32 output for one image."""
        return FLOAT32 * math.prod(self.output_shape)


@dataclass(frozen=True)
class Facts:
    """A network."""

    layers: list[LayerFacts]
    estimate_flops: int
    """Of the Lipschitz estimates of one training step, whatever the batch: power iteration, and
    what the networks of LipLT do with the rows of the head."""
    refusal: str | None
    """Why it gets no certificate, or None."""

    @property
    def parameters(self) -> int:
        """Trainable numbers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops(self) -> int:
        """Of one image's forward."""
        return sum(layer.flops for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Outputs of all layers for one image, which a training step keeps."""
        return sum(layer.activation_bytes for layer in self.layers)


def describe(
    name: str, num_classes: int, image_size: int, in_channels: int = 3, **options: Any
) -> Facts:
    """Build a network without memory for its weights, and count.

    Raises:
        ValueError: as `build_model`.
    """
    with FakeTensorMode():
        model = build_model(name, num_classes, image_size, in_channels, **options).eval()
        return facts_of(model, torch.empty(1, in_channels, image_size, image_size))


@torch.no_grad()
def facts_of(model: LipschitzNetwork, image: Tensor) -> Facts:
    """Count the layers of a network on one image [1, C, H, W], on the device of both."""
    before = model.training
    model.train()
    # Copies: a forward in training advances the vectors of the power iteration.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with FlopCounterMode(display=False) as counter:
        torch.func.functional_call(model, buffers, (image,))
    whole = counter.get_total_flops()
    layers = []
    x = image
    scales = model.scales()
    for name, layer in model.named_layers():
        with FlopCounterMode(display=False) as counter:
            x = layer(x, scales[name]) if name in scales else layer(x)
        layers.append(
            LayerFacts(
                name,
                type(layer).__name__,
                tuple(x.shape[1:]),
                sum(parameter.numel() for parameter in layer.parameters()),
                counter.get_total_flops(),
            )
        )
    with FlopCounterMode(display=False) as counter:
        found = model.head(x)
    logits = found[0] if isinstance(found, tuple) else found  # distances of the rows come with it
    head = sum(parameter.numel() for parameter in model.head.parameters())
    kind = type(model.head).__name__
    layers.append(
        LayerFacts("head", kind, tuple(logits.shape[1:]), head, counter.get_total_flops())
    )
    model.train(before)
    estimates = whole - sum(layer.flops for layer in layers)
    return Facts(layers, estimates, model.refusal())


@torch.no_grad()
def seconds_an_image(model: LipschitzNetwork, image: Tensor, repeats: int = 5) -> float:
    """The least of some measurements of one image's forward in evaluation, estimates included."""
    model.eval()
    best = math.inf
    for _ in range(repeats + 1):  # the first one warms up
        start = time.perf_counter()
        model(image)
        if image.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def table(facts: Facts) -> str:
    """The facts as lines of text."""
    rows = [("layer", "kind", "output", "parameters", "MFLOP", "kB")]
    rows += [
        (
            layer.name,
            layer.kind,
            "×".join(map(str, layer.output_shape)),
            f"{layer.parameters:,}",
            f"{layer.flops / 1e6:.2f}",
            f"{layer.activation_bytes / 1e3:.1f}",
        )
        for layer in facts.layers
    ]
    total = (f"{facts.parameters:,}", f"{facts.flops / 1e6:.2f}")
    rows.append(("total", "", "", *total, f"{facts.activation_bytes / 1e3:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
