"""How restless training is: the share of images whose threatening class changed (Figure 2b).

Notable: each image's class of this epoch and of the last is remembered by sample id, so the share
compares the same image with itself on any number of processes; both memories are checkpointed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.distributed import max_over_ranks
from pipeline.objectives.base import Losses
from pipeline.training.callbacks import Callback, EpochRecord
from pipeline.types import Batch

_UNSEEN = -1


class ThreateningClasses(Callback):
    """Adds `threatening_class_changed` to the epoch's numbers.

    The threatening class is the one with the second-highest logit (LiResNet, Section 4). The value
    is a share of the real images seen in both this epoch and the one before; None in the first.

    Args:
        num_samples: of the training set; ids of real images are below it.
        device: where the predictions are.
    """

    def __init__(self, num_samples: int, device: torch.device) -> None:
        self._size = num_samples
        # One place more than there are images: what is of no image of ours is written there.
        shape = (num_samples + 1,)
        self._before = torch.full(shape, _UNSEEN, dtype=torch.int32, device=device)
        self._now = self._before.clone()

    def on_micro_batch(self, batch: Batch, losses: Losses) -> None:
        """Remember the threatening class of this rank's images."""
        assert losses.threatening is not None, "of a classifier"
        places = batch.sample_ids.masked_fill(batch.is_generated, self._size)
        self._now[places] = losses.threatening.to(torch.int32)

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Compare with the last epoch, and make this one the last."""
        max_over_ranks(self._now)
        before, now = self._before[: self._size], self._now[: self._size]
        both = (before != _UNSEEN) & (now != _UNSEEN)
        compared = int(both.sum())
        changed = int((both & (before != now)).sum())
        record.numbers["threatening_class_changed"] = changed / compared if compared else None
        self._before, self._now = self._now, torch.full_like(self._now, _UNSEEN)

    def tensors(self) -> dict[str, Tensor]:
        """Both memories, [num_samples] int32; the current one merged from all ranks."""
        max_over_ranks(self._now)
        memories = {"before": self._before, "now": self._now}
        return {name: memory[: self._size].cpu() for name, memory in memories.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back both memories."""
        self._before[: self._size] = tensors["before"].to(self._before)
        self._now[: self._size] = tensors["now"].to(self._now)
