"""Validation during training: clean accuracy and an *estimate* of VRA.

Notable:
- The estimate rests on power iteration and float32 logits: it proves nothing and is named so
  wherever it is shown. Certification is `pipeline.certify`.
- Every image counts once on any number of ranks: whole blocks are divided, never padded. Ranks
  left without a block in the last round run one that is not counted, since under a sharded engine
  a forward is a collective.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.data.base import BlockLoader
from pipeline.distributed import sum_over_ranks
from pipeline.lipschitz.kept_estimates import estimates_kept
from pipeline.objectives.base import measure
from pipeline.training.callbacks import Callback, EpochRecord
from pipeline.training.engine import Engine
from pipeline.types import Epsilon


@dataclass(frozen=True)
class Validation:
    """Shares of the whole validation set."""

    clean_accuracy: float
    vra_estimate: float
    """At epsilon.target; unsound, see the file's docstring."""
    num_images: int


@torch.no_grad()
def validate(engine: Engine, loader: BlockLoader, epsilon: float) -> Validation:
    """Run the model in evaluation mode over every block. A collective.

    Args:
        engine: holds the model; its mode is put back afterwards.
        loader: the validation set.
        epsilon: l2 radius in stored-image space.
    """
    world = engine.world
    training = engine.module.training
    engine.module.eval()
    mine = list(range(world.rank, loader.num_blocks, world.size))
    idle = -(-loader.num_blocks // world.size) - len(mine)
    counts = torch.zeros(3, dtype=torch.int64, device=engine.device)
    with estimates_kept():
        for number, block in enumerate(loader.blocks(mine + [0] * idle)):
            batch = block.to(engine.device)
            prediction = engine.forward(batch.images)
            if number < len(mine):
                metrics = measure(prediction, batch.labels, epsilon)
                images = torch.ones_like(metrics["correct"])
                found = torch.stack([metrics["correct"], metrics["robust"], images])  # [3, B]: 0/1
                counts += found.long().sum(1)
    engine.module.train(training)
    num_correct, num_robust, num_images = sum_over_ranks(counts).tolist()
    assert num_images == loader.info.num_samples, "every image counts once"
    return Validation(num_correct / num_images, num_robust / num_images, num_images)


class ValidationCallback(Callback):
    """Validates after every `every`-th epoch and after the last.

    Args:
        engine, loader: as `validate`.
        target: the radius to be certified.
        every: epochs; 0 for after the last only.
    """

    def __init__(self, engine: Engine, loader: BlockLoader, target: Epsilon, every: int) -> None:
        self._engine = engine
        self._loader = loader
        self._target = target
        self._every = every

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Add `validation` to the epoch's numbers."""
        if record.last or (self._every and (record.epoch + 1) % self._every == 0):
            result = validate(self._engine, self._loader, float(self._target))
            record.numbers["validation"] = {
                "clean_accuracy": result.clean_accuracy,
                "vra_estimate": result.vra_estimate,
                "epsilon": self._target.text,
                "num_images": result.num_images,
            }
