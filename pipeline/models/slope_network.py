"""SlopeNetwork: affine layers with slope-restricted activations between them, and a linear head.

    x_{k+1} = φ(W_k x_k + b_k), k = 0 … L−1;   logits = W_L x_L + b_L

Notable:
- Margins are judged by LipLT or by the product of the layers' norms (`lipschitz: liplt | product`).
  The pairwise constants are those of the maps f_j − f_i themselves: the K rows of the head go back
  through the layers once, and the K(K − 1)/2 norms of their differences are exact.
- With `curvature`, the prediction carries K(W, j, i) of CRC, Theorem 4, for every pair of classes,
  and, of up to twenty classes, how concave each margin can be.
- Layers start as in PyTorch, as the papers' do, not orthogonal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline.layers.activation import Activation
from pipeline.layers.base import LipschitzLayer
from pipeline.layers.conv2d import Conv2d
from pipeline.layers.dense import Dense
from pipeline.layers.flatten import Flatten
from pipeline.layers.head import row_distances
from pipeline.layers.linear_head import LinearHead
from pipeline.lipschitz.concavity_estimate import MOST_CLASSES, concavity_table
from pipeline.lipschitz.curvature_estimate import curvature_table
from pipeline.lipschitz.liplt_estimate import (
    Map,
    combine,
    partial_norms,
    rows_through,
    start_vectors,
)
from pipeline.lipschitz.logits_only import concavity_wanted, estimates_wanted
from pipeline.lipschitz.power_iteration import normalized, start_vector
from pipeline.models.network import LipschitzNetwork, without_estimates
from pipeline.options import require_choice
from pipeline.stopwatch import part
from pipeline.types import Prediction

LIPSCHITZ = ("liplt", "product")
"""How margins may be judged."""
CONCAVE = "concave_vector"


class SlopeNetwork(LipschitzNetwork):
    """A network of the form above.

    Args:
        trunk: `Conv2d` or `Dense`, each followed by an `Activation`, and `Flatten`s.
        head: takes the trunk's features.
        input_shape: [C, H, W] of one image.
        power_iterations: steps a forward.
        lipschitz: "liplt" or "product".
        curvature: put curvature bounds into the prediction; activations must be smooth.

    Raises:
        ValueError: another layer in the trunk, or an affine layer without activation.
    """

    head: LinearHead  # type: ignore[assignment]  # another head than LipschitzNetwork's

    def __init__(
        self,
        trunk: nn.Sequential,
        head: LinearHead,
        input_shape: tuple[int, int, int],
        power_iterations: int,
        lipschitz: str = "liplt",
        curvature: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.trunk = trunk
        self.head = head
        self.input_shape = input_shape
        self.power_iterations = power_iterations
        self.hold_power_iteration = False
        require_choice("model.lipschitz", lipschitz, LIPSCHITZ)
        self.lipschitz = lipschitz
        self.curvature = curvature
        stages = list(self._stages())
        self.norm_names = [name for name, _, _ in stages]
        self.slopes = [act.slopes for _, _, act in stages]
        shapes = [tuple(layer.vector.shape) for _, layer, _ in stages]
        for number, (_, layer, _) in enumerate(stages):
            # One vector for each product that begins here, in place of the layer's own.
            layer.vector = start_vectors(len(stages), number, shapes[number])
            _start_as_torch(layer)
        classes = len(head.weight)
        if curvature and classes <= MOST_CLASSES:
            for number, shape in enumerate(shapes):
                pairs = classes * (classes - 1)
                vectors = normalized(start_vector((pairs, math.prod(shape))), 0.0)
                self.register_buffer(f"{CONCAVE}{number}", vectors)

    def _concave_vectors(self) -> list[Tensor]:
        """[K(K − 1), inputs] of each layer; none where they are not kept."""
        own = self.named_buffers(recurse=False)
        return [vector for name, vector in own if name.startswith(CONCAVE)]

    def _stages(self) -> Iterator[tuple[str, Conv2d | Dense, Activation]]:
        """The affine layers, each with its name and the activation after it."""
        waiting: tuple[str, Conv2d | Dense] | None = None
        for name, layer in self.named_layers():
            if isinstance(layer, Conv2d | Dense) and waiting is None:
                waiting = name, layer
            elif isinstance(layer, Activation) and waiting is not None:
                yield *waiting, layer
                waiting = None
            elif not isinstance(layer, Flatten):
                raise ValueError(
                    f"layer {name!r} is a {type(layer).__name__} in a place where LipLT has none: "
                    "take Conv2d or Dense, each with one Activation behind it"
                )
        if waiting is not None:
            raise ValueError(f"layer {waiting[0]!r} has no activation behind it")

    def maps(self) -> list[Map]:
        """W_0 … W_{L−1}, differentiable."""
        return [
            Map(layer.weight, tuple(layer.vector.shape[1:]), *_geometry(layer))
            for _, layer, _ in self._stages()
        ]

    def forward(self, images: Tensor) -> Prediction:
        """Logits and estimates. See `LipschitzNetwork.forward`.

        Inside `logits_only()` the estimates are zeros and no vector moves.
        """
        self._require_images(images)
        logits = self.head(self.trunk(images))
        if not estimates_wanted():
            return without_estimates(logits)
        with part("lipschitz"), torch.autocast(images.device.type, enabled=False):
            norms, table = self._estimate()
            layers = torch.stack([norms[k][k] for k in range(len(norms))])
            curvature, concavity = self._curvatures(layers) if self.curvature else (None, None)
        return Prediction(logits, table, layers, curvature, concavity)

    def _curvatures(self, norms: Tensor) -> tuple[Tensor, Tensor | None]:
        """K and C of all pairs, given the layers' norms [L]."""
        weights, rows = [linear.weight for linear in self.maps()], self.head.weight
        curvature = curvature_table(weights, rows, list(norms), self.slopes)
        vectors = self._concave_vectors()
        if not vectors or not concavity_wanted():
            return curvature, None
        advance = self.training and not self.hold_power_iteration
        concavity, reached = concavity_table(
            weights, rows, list(norms), self.slopes, vectors, advance
        )
        if advance:
            for vector, found in zip(vectors, reached, strict=True):
                vector.copy_(found)
        return curvature, concavity

    def _estimate(self) -> tuple[list[Tensor], Tensor]:
        """‖W_k⋯W_j‖ for j ≤ k, entry k [k + 1]; and the [K, K] table of margins."""
        maps = self.maps()
        hold = self.training and self.hold_power_iteration
        vectors = [layer.vector for _, layer, _ in self._stages()]
        rows = self.head.weight
        if self.lipschitz == "product":
            # Each layer alone: the same sweep for one map at a time.
            norms = [
                torch.cat([norm.new_zeros(k), norm])
                for k, norm in enumerate(
                    partial_norms(
                        [linear],
                        [vector[:1]],
                        0 if hold else self.power_iterations,
                        self.training and not hold,
                    )[0]
                    for linear, vector in zip(maps, vectors, strict=True)
                )
            ]
            steepness = math.prod(slope.most for slope in self.slopes)
            product = torch.stack([norm[-1] for norm in norms]).double().prod() * steepness
            return norms, (product * row_distances(rows).double()).to(rows.dtype)
        norms = partial_norms(
            maps,
            vectors,
            iterations=0 if hold else self.power_iterations,
            update=self.training and not hold,
        )
        distances = [row_distances(found) for found in rows_through(maps, rows)]
        wide = [norm.double() for norm in norms]
        _, table = combine(wide, self.slopes, [each.double() for each in distances])
        return norms, table.to(rows.dtype)


def _geometry(layer: Conv2d | Dense) -> tuple[int, int]:
    """Stride and padding."""
    return (layer.stride, layer.padding) if isinstance(layer, Conv2d) else (1, 0)


def _start_as_torch(layer: LipschitzLayer) -> None:
    """Weights and bias as `torch.nn.Conv2d` and `torch.nn.Linear` draw them."""
    assert isinstance(layer, Conv2d | Dense)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    bound = 1 / math.sqrt(layer.weight[0].numel())
    nn.init.uniform_(layer.bias, -bound, bound)
