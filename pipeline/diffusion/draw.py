"""Drawing all batches of a set of samples, on any number of processes, killed and resumed.

Notable:
- A batch is so many consecutive samples, always whole: the samples of a batch, and so their
  pixels, do not depend on the count, the number of processes or what was done before.
- Ranks work in short rounds, as certification does: between them they count for the bar, and an
  error of one ends all of them within a round.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from pipeline import distributed
from pipeline.diffusion.choice import Choice, batches_needed, choose
from pipeline.diffusion.classifier import Judge
from pipeline.diffusion.sampler import Sampler, classes_and_numbers
from pipeline.diffusion.store import DrawnBatches
from pipeline.distributed import World
from pipeline.progress import ProgressBar

BATCHES_A_ROUND = 2


class Draw:
    """Draws until the wanted samples are on disk.

    Args:
        sampler: of this rank.
        store: of all ranks.
        count: samples wanted.
        batch_size: of all batches.
        num_classes: K.
        judge: with `confidence`, the filter; None for none.
        leave_if_asked: called whenever a batch is stored; may raise what is no `Exception`.
    """

    def __init__(
        self,
        sampler: Sampler,
        store: DrawnBatches,
        count: int,
        batch_size: int,
        num_classes: int,
        judge: Judge | None,
        confidence: float | None,
        leave_if_asked: Callable[[], None],
    ) -> None:
        self._sampler, self._store = sampler, store
        self._count, self._batch_size, self._num_classes = count, batch_size, num_classes
        self._judge, self._confidence = judge, confidence
        self._leave_if_asked = leave_if_asked

    def run(self, world: World) -> Choice:
        """Draw what is missing. A collective.

        Returns:
            Which of the drawn samples to take; equal on every rank.

        Raises:
            ValueError: the filter rejects nearly everything.
            RankFailedError: another rank failed.
        """
        batches = -(-self._count // self._batch_size)
        while True:
            self._draw(batches, world)
            choice = self._choose(batches, world)
            if choice.wanting == 0:
                return choice
            batches = batches_needed(
                choice, batches, self._batch_size, self._count, self._num_classes
            )

    def _choose(self, batches: int, world: World) -> Choice:
        """Rank 0's choice on every rank."""
        choice: Choice | None = None
        with distributed.together():
            if world.is_main:
                choice = choose(
                    self._store,
                    batches,
                    self._batch_size,
                    self._count,
                    self._num_classes,
                    self._confidence,
                )
        chosen: Choice = distributed.broadcast_object(choice)
        return chosen

    def _draw(self, batches: int, world: World) -> None:
        """Have the first `batches` batches on disk."""
        missing = distributed.on_main(lambda: self._store.missing(batches))
        size = self._batch_size
        done = (batches - len(missing)) * size
        a_round = world.size * BATCHES_A_ROUND
        with ProgressBar("draw", batches * size, unit="img", initial=done) as bar:
            for start in range(0, len(missing), a_round):
                now = missing[start : start + a_round]
                own = now[world.rank :: world.size]
                failure: Exception | None = None
                try:
                    for number in own:
                        self._draw_batch(number)
                        bar.advance(size)
                        self._leave_if_asked()
                except Exception as error:
                    failure = error
                distributed.raise_together(failure)
                bar.advance(size * (len(now) - len(own)))

    def _draw_batch(self, number: int) -> None:
        """Draw and store one batch."""
        indices = torch.arange(number * self._batch_size, (number + 1) * self._batch_size)
        labels, numbers = classes_and_numbers(indices, self._num_classes)
        images = self._sampler(labels, numbers)
        confidences = None
        if self._judge is not None:
            confidences = self._judge.confidence(images, labels).numpy()
        channels_last = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        self._store.write(number, channels_last, confidences)
