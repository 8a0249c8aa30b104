"""LipschitzNetwork: a trunk of Lipschitz layers and a normalised head, as one trainable module.

Notable:
- One forward gives logits and every Lipschitz estimate. Nothing is computed from the weights
  outside it, where ZeRO-3 has emptied them.
- The trunk is nested `nn.Sequential`s of `LipschitzLayer`s; any other module in it is refused.
- The product of the layers' estimates is taken in float64: in float32 that of a deep network can
  leave the range on the way to a harmless result.
- In evaluation the layers that divide by their norm, as CPL's, have it from many more iterations:
  they are then the function that an export freezes, as near as no proof comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from pipeline.distributed import World, together
from pipeline.layers.base import LipschitzLayer
from pipeline.layers.exported import ExportedLayer
from pipeline.layers.head import Head
from pipeline.layers.network import ExportedNetwork
from pipeline.lipschitz.kept_estimates import kept_estimates
from pipeline.lipschitz.logits_only import estimates_wanted, logits_only
from pipeline.lipschitz.power_iteration import NormRequest, estimate_norms
from pipeline.lipschitz.proofs import NormProofs, sharing
from pipeline.stopwatch import part
from pipeline.types import Prediction

EVALUATION_ITERATIONS = 100
"""Of CPL's Algorithm 1, from the vectors of training."""


class LipschitzNetwork(nn.Module):
    """f(x) = head(trunk(x)) for images in [0, 1].

    Args:
        trunk: `LipschitzLayer`s in nested `nn.Sequential`s.
        head: takes the trunk's features.
        input_shape: [C, H, W] of one image.
        power_iterations: steps of power iteration a forward.
        evaluation_iterations: steps in evaluation for layers that divide by their norm.

    Raises:
        ValueError: the trunk has a module of which nobody said how steep it is.
    """

    def __init__(
        self,
        trunk: nn.Sequential,
        head: Head,
        input_shape: tuple[int, int, int],
        power_iterations: int,
        evaluation_iterations: int = EVALUATION_ITERATIONS,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.input_shape = input_shape
        self.power_iterations = power_iterations
        self.evaluation_iterations = evaluation_iterations
        self.hold_power_iteration = False
        """In training: True takes the vectors as they are and leaves them. The loop sets it for the
        micro-batches after the first, so that all of a step are judged by the same estimates."""
        self.norm_names: list[str] = [
            name for name, layer in self.named_layers() if layer.norm_requests()
        ]
        """Names of the entries of `Prediction.layer_lipschitz`."""

    def named_layers(self) -> Iterator[tuple[str, LipschitzLayer]]:
        """The trunk's layers in order, with dotted names ("backbone.3.conv")."""
        yield from _named_layers(self.trunk, "")

    def forward(self, images: Tensor) -> Prediction:
        """Logits and Lipschitz estimates.

        In training the power iteration advances its buffers, unless `hold_power_iteration`; in
        evaluation it starts from them and leaves them. Inside `logits_only()` the estimates are
        zeros and no vector moves.

        Args:
            images: [B, C, H, W] in [0, 1], floating point.

        Raises:
            ValueError: images of another shape or of integers.
        """
        self._require_images(images)
        with part("lipschitz"):
            layer_lipschitz, scales = self._estimate_layers()
        x = images
        for name, layer in self.named_layers():
            x = layer(x, scales[name]) if name in scales else layer(x)
        logits, distances = self.head(x)
        if not estimates_wanted():
            return without_estimates(logits)
        with torch.autocast(images.device.type, enabled=False):
            steepness = layer_lipschitz.double().prod()
            margin_lipschitz = (steepness * distances.double()).to(distances.dtype)
        return Prediction(logits, margin_lipschitz, layer_lipschitz)

    def scales(self) -> dict[str, Tensor]:
        """By layer, the norms that a forward inside `logits_only()` divides by."""
        with logits_only():
            return self._estimate_layers()[1]

    def _require_images(self, images: Tensor) -> None:
        if images.shape[1:] != self.input_shape or not images.is_floating_point():
            raise ValueError(
                f"the model takes floating-point images of shape {list(self.input_shape)} in "
                f"[0, 1] and is given {images.dtype} of shape {list(images.shape[1:])}"
            )

    def _estimate_layers(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Estimates of the layers in `norm_names` [n], and by name of those that scale themselves.

        All of them in one call, so that layers of equal shape share a product. Inside
        `logits_only()` none of the first kind, and the second from the vectors as they are.
        """
        layers = list(self.named_layers())
        wanted = estimates_wanted()
        norms = [layer.norm_requests() if wanted else [] for _, layer in layers]
        asked = [*chain(*norms)]
        scaled = {name: layer.scale_request() for name, layer in layers}
        scales = {name: request for name, request in scaled.items() if request is not None}
        if self.training:
            hold = self.hold_power_iteration or not wanted
            iterations = 0 if hold else self.power_iterations
            estimates = self._estimated([*asked, *scales.values()], iterations, update=not hold)
        else:
            estimates = torch.cat(
                [
                    self._estimated(asked, self.power_iterations),
                    self._evaluation_scales(list(scales.values())),
                ]
            )
        found = iter(estimates)
        constants = [
            layer.lipschitz([next(found) for _ in asked])
            for (_, layer), asked in zip(layers, norms, strict=True)
            if asked
        ]
        return (
            torch.stack(constants) if constants else estimates[:0],
            dict(zip(scales, found, strict=True)),
        )

    def _estimated(
        self, requests: list[NormRequest], iterations: int, update: bool = False
    ) -> Tensor:
        """`estimate_norms`, of no requests too: [n]."""
        if not requests:
            return torch.ones(0, device=next(self.parameters()).device)
        return estimate_norms(requests, iterations, update)

    def _evaluation_scales(self, requests: list[NormRequest]) -> Tensor:
        """The norms that layers divide by in evaluation, from `kept_estimates` where they are."""
        kept = None if torch.is_grad_enabled() else kept_estimates()
        if kept is None:
            return self._estimated(requests, self.evaluation_iterations)
        if self not in kept:
            kept[self] = self._estimated(requests, self.evaluation_iterations)
        return kept[self]

    def refusal(self) -> str | None:
        """Why this network can get no certificate, naming the layer; None where it can get one."""
        for name, layer in self.named_layers():
            reason = layer.refusal()
            if reason is not None:
                return f"layer {name!r} cannot be certified: {reason}"
        return None

    def export(self, world: World | None = None) -> ExportedNetwork:
        """The exact function that is certified: all parameters folded, float32, on the CPU.

        Args:
            world: if given, every rank of it must call this; they share the proofs of the norms
                that steps are frozen from.

        Raises:
            ValueError: a weight is not finite.
            RuntimeError: another rank failed.
        """
        if world is None or world.size == 1:
            return self._export()
        proofs = NormProofs(world.rank, world.size)
        with sharing(proofs):
            with together():
                self._export()
            proofs.exchange()
            return self._export()

    def _export(self) -> ExportedNetwork:
        """See `export`."""
        layers: list[ExportedLayer] = []
        shape: tuple[int, ...] = self.input_shape
        for name, layer in self.named_layers():
            layers += layer.export(name, shape)
            shape = layers[-1].output_shape
        return ExportedNetwork(tuple(layers), self.head.export(), self.input_shape)


def without_estimates(logits: Tensor) -> Prediction:
    """The prediction of a forward inside `logits_only()`, from logits [B, K]."""
    classes = logits.shape[1]
    return Prediction(logits, logits.new_zeros(classes, classes), logits.new_zeros(0))


def _named_layers(module: nn.Sequential, prefix: str) -> Iterator[tuple[str, LipschitzLayer]]:
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            yield from _named_layers(child, f"{prefix}{name}.")
        elif isinstance(child, LipschitzLayer):
            yield prefix + name, child
        else:
            raise ValueError(
                f"layer {prefix + name!r} is a {type(child).__name__}, of which nothing says how "
                "steep it is: make it a LipschitzLayer"
            )
