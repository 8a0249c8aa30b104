"""LipschitzLayer: what every layer of a trainable network must say about itself.

Notable: there is no default. A layer of which nobody said how steep it is cannot be put into a
network (`pipeline.models.network`); it is never taken to be 1-Lipschitz.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pipeline.layers.exported import ExportedLayer
from pipeline.lipschitz.power_iteration import NormRequest


class LipschitzLayer(nn.Module, ABC):
    """A layer that knows its training estimate and its exported twin.

    `forward` takes x, and the estimate asked for by `scale_request` where that is not None.
    """

    @abstractmethod
    def norm_request(self) -> NormRequest | None:
        """The linear map whose norm is this layer's Lipschitz constant.

        None says that the constant is exactly 1 for every value of the parameters.
        """

    def norm_requests(self) -> list[NormRequest]:
        """The linear maps whose norms `lipschitz` puts together; none where the constant is 1."""
        request = self.norm_request()
        return [] if request is None else [request]

    def lipschitz(self, norms: list[Tensor]) -> Tensor:
        """The training estimate of the layer's constant from those of `norm_requests`, in order."""
        return norms[0]

    def scale_request(self) -> NormRequest | None:
        """The linear map whose estimated norm `forward` divides by; None where it needs none.

        It is estimated together with the norms of all other layers, before the forward.
        """
        return None

    def refusal(self) -> str | None:
        """Why no certificate can be given to a network with this layer; None where one can."""
        return None

    @abstractmethod
    def export(self, name: str, input_shape: tuple[int, ...]) -> list[ExportedLayer]:
        """The exact real functions this layer stands for, parameters folded in.

        Folding is done in float64 and rounded to float32 once.

        Args:
            name: dotted and unique in the network; prefix of the tensors' names.
            input_shape: of one input, without the batch.

        Raises:
            ValueError: the layer cannot take inputs of that shape, or as `refusal`.
        """


class CompositeLayer(LipschitzLayer):
    """A layer whose constant is put together of several norms."""

    def norm_request(self) -> NormRequest | None:
        """No single one."""
        raise TypeError(f"{type(self).__name__} has several norm_requests")

    @abstractmethod
    def norm_requests(self) -> list[NormRequest]:
        """See `LipschitzLayer.norm_requests`."""

    @abstractmethod
    def lipschitz(self, norms: list[Tensor]) -> Tensor:
        """See `LipschitzLayer.lipschitz`."""
