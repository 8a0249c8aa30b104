"""slope_resnet: a fully connected residual network judged by LipLT (Fazlyab et al. 2023, (14)).

    x_1 = φ(W_0 x + b_0),  x_{k+1} = x_k + G_k φ(W_k x_k + b_k),  logits = W_L x_L + b_L

Notable: the pairwise constants of training are those of Theorem 3 for the whole network, and so
are the certified ones with `certification.method: liplt`; `product` takes each block's Theorem 2.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from pipeline.layers.activation import Activation
from pipeline.layers.dense import Dense
from pipeline.layers.flatten import Flatten
from pipeline.layers.head import row_distances
from pipeline.layers.linear_head import LinearHead
from pipeline.layers.slope_residual import SlopeResidual
from pipeline.lipschitz.liplt_estimate import Map
from pipeline.lipschitz.logits_only import estimates_wanted
from pipeline.lipschitz.residual_estimate import (
    Stage,
    combine,
    residual_norms,
    rows_through,
    start_vectors,
)
from pipeline.models.network import LipschitzNetwork, without_estimates
from pipeline.options import require_count
from pipeline.stopwatch import part
from pipeline.types import Prediction


class SlopeResidualNetwork(LipschitzNetwork):
    """A network of the form above.

    Args:
        trunk: `Flatten`, `Dense` "stem", `Activation`, then `SlopeResidual`s.
        head: takes the trunk's features.
        input_shape: [C, H, W] of one image.
        power_iterations: steps a forward.
    """

    head: LinearHead  # type: ignore[assignment]  # another head than LipschitzNetwork's

    def __init__(
        self,
        trunk: nn.Sequential,
        head: LinearHead,
        input_shape: tuple[int, int, int],
        power_iterations: int,
    ) -> None:
        nn.Module.__init__(self)
        self.trunk = trunk
        self.head = head
        self.input_shape = input_shape
        self.power_iterations = power_iterations
        self.hold_power_iteration = False
        stages = self.stages()
        self.norm_names = [
            name for name, layer in self.named_layers() if isinstance(layer, Dense | SlopeResidual)
        ]
        hidden = [len(stage.inner.weight) for stage in stages]
        starts = start_vectors(math.prod(input_shape), hidden)
        self._starts = [f"start_{number}" for number in range(len(starts))]
        for name, vectors in zip(self._starts, starts, strict=True):
            self.register_buffer(name, vectors)

    def stages(self) -> list[Stage]:
        """The network as LipLT sees it, differentiable."""
        found = []
        dense: Dense | None = None
        for _, layer in self.named_layers():
            if isinstance(layer, Dense):
                dense = layer
            elif isinstance(layer, Activation):
                assert dense is not None
                inner = Map(dense.weight, (dense.weight.shape[1],))
                found.append(Stage(inner, None, False, layer.slopes))
            elif isinstance(layer, SlopeResidual):
                inner = Map(layer.weight, (layer.weight.shape[1],))
                outer = Map(layer.outer, (layer.outer.shape[1],))
                found.append(Stage(inner, outer, True, layer.slopes))
        return found

    def forward(self, images: Tensor) -> Prediction:
        """Logits and estimates. See `LipschitzNetwork.forward`.

        Inside `logits_only()` the estimates are zeros and no vector moves.
        """
        self._require_images(images)
        logits = self.head(self.trunk(images))
        if not estimates_wanted():
            return without_estimates(logits)
        with part("lipschitz"), torch.autocast(images.device.type, enabled=False):
            stages = self.stages()
            hold = self.training and self.hold_power_iteration
            norms = residual_norms(
                stages,
                [getattr(self, name) for name in self._starts],
                iterations=0 if hold else self.power_iterations,
                update=self.training and not hold,
            )
            rows = self.head.weight
            apart = [row_distances(found).double() for found in rows_through(stages, rows)]
            slopes = [stage.slopes for stage in stages]
            constants, table = combine([norm.double() for norm in norms], slopes, apart)
        layers = torch.stack(constants).to(rows.dtype)
        return Prediction(logits, table.to(rows.dtype), layers)


def slope_resnet(
    num_classes: int,
    image_size: int,
    in_channels: int = 3,
    width: int = 256,
    inner: int = 256,
    blocks: int = 4,
    activation: str = "relu",
    power_iterations: int = 5,
) -> SlopeResidualNetwork:
    """Build one.

    Args:
        num_classes: K.
        image_size: H = W of the images.
        in_channels: C of the images.
        width: of x_1 … x_L.
        inner: rows of W_1 ….
        blocks: residual ones.
        activation: relu, leaky_relu, softplus, sigmoid or tanh.
        power_iterations: steps a forward.

    Raises:
        ValueError: an unknown activation, or a size that is no whole number from 1.
    """
    require_count("model.num_classes", num_classes, least=2)
    require_count("model.in_channels", in_channels)
    require_count("model.width", width)
    require_count("model.inner", inner)
    require_count("model.blocks", blocks)
    require_count("model.power_iterations", power_iterations)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=Flatten())
    layers["stem"] = Dense(in_channels * image_size**2, width)
    layers["stem_act"] = Activation(activation)
    for number in range(blocks):
        layers[f"block{number}"] = SlopeResidual(width, inner, activation, 1 / math.sqrt(blocks))
    return SlopeResidualNetwork(
        nn.Sequential(layers),
        LinearHead(width, num_classes),
        (in_channels, image_size, image_size),
        power_iterations,
    )
