"""The pass over a whole data set in fixed blocks, on any number of threads and processes.

Notable:
- A block is 256 consecutive images and is never split: one thread computes it with single-threaded
  mathematics, so its rows are the same bits wherever and beside whatever it is computed.
- Ranks work in short rounds. Between rounds they add up their counts, for the bar, and an error of
  one ends all of them within a round, not after hours.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from pipeline import distributed
from pipeline.certify.arithmetic import conventional_arithmetic, single_threaded_mathematics
from pipeline.certify.block_store import BlockStore
from pipeline.certify.lipschitz_certifier import LipschitzCertifier
from pipeline.certify.unsound import UnsoundReference
from pipeline.certify.verdicts import Verdicts, read_rows, write_rows
from pipeline.data.base import BLOCK, BlockLoader
from pipeline.distributed import World
from pipeline.progress import ProgressBar
from pipeline.types import Batch, Epsilon

BLOCKS_A_ROUND = 2
"""Blocks for each thread between two meetings of the ranks."""


@dataclass(frozen=True)
class Tally:
    """Counts of images, for the progress bar."""

    images: int = 0
    correct: int = 0
    certified: int = 0

    @classmethod
    def of(cls, verdicts: Verdicts, epsilon: Epsilon) -> Tally:
        """Count a block's rows."""
        correct = int(verdicts.correct.sum())
        return cls(len(verdicts), correct, round(verdicts.vra(epsilon) * len(verdicts)))

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.images + other.images,
            self.correct + other.correct,
            self.certified + other.certified,
        )

    def percentages(self) -> dict[str, str]:
        """Running clean accuracy and VRA."""
        whole = max(self.images, 1)
        return {
            "clean": f"{self.correct / whole:.2%}",
            "vra": f"{self.certified / whole:.2%}",
        }


class WholeSetPass:
    """Certifies every block that is not stored yet, and stores it.

    Args:
        certifier: what certifies a batch.
        unsound: the usual recipe, for comparison.
        loader: the images.
        store: where finished blocks go.
        epsilon: the radius whose VRA the progress bar shows.
        leave_if_asked: called whenever a block is stored. It may raise what is no `Exception`
            (`StopRequestedError`): then this rank leaves at once, without a collective.
    """

    def __init__(
        self,
        certifier: LipschitzCertifier,
        unsound: UnsoundReference,
        loader: BlockLoader,
        store: BlockStore,
        epsilon: Epsilon,
        leave_if_asked: Callable[[], None],
    ) -> None:
        self.leave_if_asked = leave_if_asked
        self.certifier, self.unsound = certifier, unsound
        self.loader, self.store, self.epsilon = loader, store, epsilon

    def run(self, world: World, threads: int) -> None:
        """Do this rank's share; returns, on every rank, when all blocks are stored.

        Args:
            world: the ranks; each must call this.
            threads: blocks at a time on this rank.

        Raises:
            ValueError: what the certifier says of a batch.
            RuntimeError: another rank failed.
        """
        missing, tally = distributed.on_main(self._resume)
        a_round = world.size * threads * BLOCKS_A_ROUND
        with (
            single_threaded_mathematics(),
            conventional_arithmetic(),
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
            ProgressBar(
                "certify", self.loader.info.num_samples, unit="img", initial=tally.images
            ) as bar,
        ):
            for start in range(0, len(missing), a_round):
                share = missing[start : start + a_round][world.rank :: world.size]
                own, failure = Tally(), None
                try:
                    for verdicts in self._certify(share, pool, threads):
                        own += Tally.of(verdicts, self.epsilon)
                        bar.advance(len(verdicts), **(tally + own).percentages())
                        self.leave_if_asked()
                except Exception as error:
                    failure = error
                distributed.raise_together(failure)
                everyone = sum(distributed.gather_objects(own), Tally())
                tally += everyone
                bar.advance(everyone.images - own.images, **tally.percentages())

    def _resume(self) -> tuple[list[int], Tally]:
        """Numbers of the blocks to do, and the counts of those that are stored."""
        missing, tally = [], Tally()
        for block in range(self.loader.num_blocks):
            size = len(block_indices(block, self.loader.info.num_samples))
            if self.store.finished(block, size):
                tally += Tally.of(read_rows(self.store.read(block)[0]), self.epsilon)
            else:
                missing.append(block)
        return missing, tally

    def _certify(
        self, share: Sequence[int], pool: ThreadPoolExecutor, threads: int
    ) -> Iterator[Verdicts]:
        """Verdicts of the blocks `share`, in order, each stored before it is yielded."""
        waiting: deque[Future[Verdicts]] = deque()
        try:
            for block, batch in zip(share, self.loader.blocks(share), strict=True):
                waiting.append(pool.submit(self._certify_block, block, batch))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()  # left early: what is begun is finished, what is not is not begun

    def _certify_block(self, block: int, batch: Batch) -> Verdicts:
        expected = block_indices(block, self.loader.info.num_samples)
        if batch.sample_ids.tolist() != list(expected):
            raise ValueError(
                f"{self.loader.info.spec} gave other images for block {block} than {expected}: "
                "the loader must neither pad, drop nor reorder"
            )
        began = time.perf_counter()
        verdicts = self.certifier.certify(batch.images, batch.labels)
        seconds = (time.perf_counter() - began) / len(batch)
        rows = write_rows(verdicts, expected.start, seconds)
        self.store.write(block, rows, self.unsound.scores(batch.images, batch.labels))
        return verdicts


def block_indices(block: int, num_samples: int) -> range:
    """The images of a block; the last one may be short."""
    return range(block * BLOCK, min((block + 1) * BLOCK, num_samples))
