"""Batches of real and generated images: two loaders of the usual kind, row by row.

Notable:
- The ratio real : generated, in lowest terms a : b, holds in every part of a batch that is looked
  at alone: the batch is a row of groups, each a real and b generated images, and every rank and
  micro-batch gets whole groups. So batch_size is divisible by (a + b) × processes × accumulation.
- `training.batch_size` is the whole batch, and an epoch is one pass over the real images. The
  generated ones follow an order of their own (`order.GeneratedOrder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.data.base import GeneratedInfo, TrainLoader
from pipeline.types import Batch


def check_batch_size(
    batch_size: int, processes: int, accumulation: int = 1, ratio: tuple[int, int] | None = None
) -> None:
    """The global batch must fall into equal parts.

    Args:
        ratio: of real to generated images in lowest terms; None where there are none of these.

    Raises:
        ValueError: it does not, naming the nearest sizes that do.
    """
    factors = {"processes": processes, "training.accumulation": accumulation}
    what = "is the global batch"
    if ratio is not None:
        real, generated = ratio
        what += f", real and generated images {real}:{generated},"
        factors[f"({real} + {generated})"] = real + generated
    parts = 1
    for factor in factors.values():
        parts *= factor
    if batch_size % parts == 0:
        return
    lower = batch_size // parts * parts
    near = f"{lower} or {lower + parts}" if lower else str(parts)
    raise ValueError(
        f"training.batch_size {batch_size} {what} and must be divisible by "
        f"{' x '.join(factors)} = {' x '.join(map(str, factors.values()))} = {parts}: take {near}"
    )


class MixedLoader:
    """`TrainLoader` of both.

    Args:
        real: says what an epoch is.
        generated: as many steps an epoch; closed with this one.
        info: of the generated part.
    """

    def __init__(self, real: TrainLoader, generated: TrainLoader, info: GeneratedInfo) -> None:
        self.info = replace(real.info, generated=info)
        self.steps_per_epoch = real.steps_per_epoch
        self._real, self._generated, self._ratio = real, generated, info.ratio

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This rank's share of each global batch of an epoch, in order, from `start_step` on."""
        with ExitStack() as stack:
            sources = []
            for loader in (self._real, self._generated):
                sources.append(loader.epoch(epoch, start_step))
                close = getattr(sources[-1], "close", None)
                if close is not None:
                    stack.callback(close)
            for real, generated in zip(*sources, strict=True):
                yield self._together(real, generated)

    def _together(self, real: Batch, generated: Batch) -> Batch:
        """Groups of real and generated images in turn; generated ids behind the last real one."""
        generated = replace(
            generated,
            sample_ids=generated.sample_ids + self.info.num_samples,
            is_generated=torch.ones_like(generated.is_generated),
        )
        pairs = zip(real.fields(), generated.fields(), strict=True)
        return Batch(*(self._in_turn(*pair) for pair in pairs))

    def _in_turn(self, real: Tensor, generated: Tensor) -> Tensor:
        """[k·a, ...], [k·b, ...] -> [k·(a + b), ...]."""
        parts = [
            field.unflatten(0, (-1, size))
            for field, size in zip((real, generated), self._ratio, strict=True)
        ]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def close(self) -> None:
        """End all threads. The loader gives no more batches."""
        self._real.close()
        self._generated.close()
