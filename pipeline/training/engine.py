"""Engine: how one model trains on one or many processes. The loop knows nothing else of it.

Notable:
- The interface is cut for sharded engines too (DeepSpeed ZeRO): weights are only whole inside
  `forward` and `whole_model`, gradients are only asked for their norm and for the names of bad
  ones, and `state` / `load_state` / `step` / `gradient_norm` are collectives.
- There is no autocast in the interface: `forward` computes in the training precision while the
  model is in training mode and in float32 otherwise, so no estimate of VRA is one of bf16 logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.checkpoint.fragments import Part, SavedState
from pipeline.distributed import World


class Engine(ABC):
    """Holds the prepared model and its optimizer."""

    world: World
    device: torch.device
    module: nn.Module
    """The model as built: for modes, names and buffers. It is called through `forward` only."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Any:
        """One forward of the wrapped model.

        Args:
            inputs: what the model takes, on `device`: images [B, C, H, W] float32 in [0, 1] and,
                for a denoiser, timesteps and labels. Every rank calls it equally often.

        Returns:
            What the model returns (`outputs.py`), in float32: a `Prediction` of a classifier.
        """

    def hold_power_iteration(self, hold: bool) -> None:
        """Have the training estimates of norms stay as they are; of no effect on other models."""
        if hasattr(self.module, "hold_power_iteration"):
            self.module.hold_power_iteration = hold  # type: ignore[assignment]

    @abstractmethod
    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Surrounds the forward and backward of one micro-batch.

        Args:
            last: gradients are summed over the ranks in this one, and not in those before it.
        """

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, this rank's scalar; over ranks gradients are averaged."""

    @abstractmethod
    def gradient_norm(self) -> Tensor:
        """l2 norm of the whole averaged gradient before clipping, scalar, equal on all ranks."""

    @abstractmethod
    def bad_gradients(self) -> list[str]:
        """Parameters whose gradient has no finite norm, in network order, equal on all ranks."""

    @abstractmethod
    def step(self, learning_rate: float, clip_norm: float | None) -> None:
        """Update the weights with the gradient, scaled to `clip_norm` if longer, and clear it.

        Comes after `gradient_norm`.
        """

    @abstractmethod
    def state(self) -> dict[str, Part]:
        """What this rank has to save, by part: `model` (with buffers) and `optimizer`.

        Copies on the CPU, which later steps do not change. Over all ranks every tensor is there
        once: whole, or in fragments that cover it. Where every rank holds everything, rank 0 gives
        whole tensors and the others empty parts, without making a copy.
        """

    @abstractmethod
    def load_state(self, saved: SavedState) -> None:
        """Put back what the `state` of all ranks gave, to the bit.

        Args:
            saved: by an engine of any kind on any number of ranks.

        Raises:
            ValueError: the tensors are not those of this model, naming the first one that differs.
        """

    @abstractmethod
    def whole_model(self) -> AbstractContextManager[nn.Module]:
        """The model with all its weights on every rank, to be exported."""
