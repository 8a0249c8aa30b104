"""The exponential average of the weights, which samples are drawn with (torch's AveragedModel).

Notable:
- In the first steps the decay is (1 + n) / (10 + n): a short run is not an average of noise.
- Every rank has the whole average. Under ZeRO-3 no rank has the whole weights, and it is refused
  (`train.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pipeline.diffusion.network import Denoiser
from pipeline.distributed import current_world
from pipeline.training.callbacks import Callback, StepRecord

UPDATES = "updates"
"""Beside the weights in a checkpoint: how many steps they are the average of."""


class WeightAverage(Callback):
    """Follows the weights, one update a step; goes into checkpoints.

    Args:
        model: whose parameters are followed; not yet wrapped by an engine.
        decay: weight of the past, from where the first steps end.
        device: where the average is kept.
    """

    def __init__(self, model: Denoiser, decay: float, device: torch.device) -> None:
        self._decay = decay
        self._followed = model
        self._average = AveragedModel(model, device, multi_avg_fn=self._blend)
        self._average.module.requires_grad_(False).eval()

    @property
    def model(self) -> Denoiser:
        """The network with the averaged weights, in evaluation mode."""
        module = self._average.module
        assert isinstance(module, Denoiser)
        return module

    def on_step_end(self, record: StepRecord) -> None:
        """Take in the weights of this step."""
        self._average.update_parameters(self._followed)

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights by name, and how many steps they are of; copied by rank 0 alone."""
        if not current_world().is_main:
            return {}
        return {
            UPDATES: self._average.n_averaged.cpu(),
            **{name: value.cpu() for name, value in self.model.state_dict().items()},
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back both."""
        weights = dict(tensors)
        self._average.n_averaged.copy_(weights.pop(UPDATES))
        self.model.load_state_dict(weights)

    @torch.no_grad()
    def _blend(
        self,
        average: tuple[Tensor, ...] | list[Tensor],
        weights: Sequence[Tensor] | tuple[Tensor, ...],
        updates: Tensor | int,
    ) -> None:
        """Of the second update and later; the first copies."""
        n = int(updates)
        decay = min(self._decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(average), list(weights), 1 - decay)
