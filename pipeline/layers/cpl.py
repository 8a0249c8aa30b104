"""Convex Potential Layers in training (Meunier et al. 2022, Algorithm 1).

    x − 2/‖W‖² · Wᵀ relu(Wx + b)

Notable:
- ‖W‖ is the estimate that the network's one power iteration makes before the forward, so layers of
  equal shape share a product; the gradient flows through it. Exported layers have a frozen step
  instead (`convex_potential.freeze`).
- A fixed step (Appendix D.2) keeps nothing 1-Lipschitz. It trains, and gets no certificate.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.layers.base import LipschitzLayer
from pipeline.layers.convex_potential import freeze
from pipeline.layers.exported import ExportedLayer
from pipeline.lipschitz.power_iteration import NormRequest, start_vector


class _ConvexPotential(LipschitzLayer):
    """What the dense and the convolutional layer have in common.

    Args:
        shape: of W.
        vector_shape: of one input.
        step: None for 2/‖W‖², or a fixed step.
    """

    vector: Tensor

    def __init__(
        self, shape: tuple[int, ...], vector_shape: tuple[int, ...], step: float | None
    ) -> None:
        super().__init__()
        self.step = step
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0]))
        self.register_buffer("vector", start_vector(vector_shape))
        # As in the authors' code: what torch gives its own layers.
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        limit = 1 / math.sqrt(math.prod(shape[1:]))
        nn.init.uniform_(self.bias, -limit, limit)

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """Wᵀ relu(Wx + b), the gradient of a convex function of x."""

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        """[B, ...] -> the same shape; `norm` is the estimate of ‖W‖, if there is no fixed step."""
        if norm is None:
            assert self.step is not None, "the network passes the estimate of scale_request"
            return x - self.step * self.gradient(x)
        steps = norm > 0  # W = 0 stays where it is
        step = torch.where(steps, 2 / torch.where(steps, norm, 1.0).square(), 0.0)
        return x - step * self.gradient(x)

    def norm_request(self) -> NormRequest | None:
        """None: the step keeps the constant at 1."""
        return None

    def scale_request(self) -> NormRequest | None:
        """W, unless the step is fixed."""
        if self.step is not None:
            return None
        padding = self.weight.shape[-1] // 2 if self.weight.ndim == 4 else 0
        return NormRequest(self.weight, self.vector, padding=padding)

    def refusal(self) -> str | None:
        """A fixed step is refused."""
        if self.step is None:
            return None
        return (
            f"its steps are fixed at {self.step:g}, and nothing keeps a step with h·‖W‖² > 2 from "
            "expanding distances (CPL, Appendix D.2): take model.step null for 2/‖W‖²"
        )

    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """As `LipschitzLayer.export`."""
        refused = self.refusal()
        if refused is not None:
            raise ValueError(f"layer {name!r} cannot be certified: {refused}")
        weight, bias = (
            np.asarray(tensor.detach().cpu().double().numpy())
            for tensor in (self.weight, self.bias)
        )
        return [freeze(name, input_shape, weight, bias)]


class ConvexPotentialDense(_ConvexPotential):
    """A dense layer: [B, D] -> [B, D].

    Args:
        features: D.
        hidden: rows of W.
        step: None for 2/‖W‖², or a fixed step.
    """

    def __init__(self, features: int, hidden: int, step: float | None = None) -> None:
        super().__init__((hidden, features), (features,), step)

    def gradient(self, x: Tensor) -> Tensor:
        """See `_ConvexPotential.gradient`."""
        return F.linear(torch.relu(F.linear(x, self.weight, self.bias)), self.weight.T)


class ConvexPotentialConv2d(_ConvexPotential):
    """A convolution that keeps the size of its maps: [B, C, H, W] -> the same.

    Args:
        channels: C.
        hidden: channels between the two convolutions.
        kernel_size: odd.
        input_size: H = W of the maps.
        step: None for 2/‖W‖², or a fixed step.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel_size: int,
        input_size: int,
        step: float | None = None,
    ) -> None:
        shape = (hidden, channels, kernel_size, kernel_size)
        super().__init__(shape, (channels, input_size, input_size), step)

    def gradient(self, x: Tensor) -> Tensor:
        """See `_ConvexPotential.gradient`."""
        padding = self.weight.shape[-1] // 2
        hidden = torch.relu(F.conv2d(x, self.weight, self.bias, padding=padding))
        return F.conv_transpose2d(hidden, self.weight, padding=padding)
