"""The samples of many images, on any number of threads and processes.

Notable: an image is never split: its samples are counted by one thread with single-threaded
mathematics. So the rows are the same, time apart, however they are shared out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pipeline import distributed
from pipeline.certify.arithmetic import conventional_arithmetic, single_threaded_mathematics
from pipeline.certify.smoothing.record import RowStore, write_row
from pipeline.certify.smoothing.smoothed import Settings, SmoothedClassifier
from pipeline.data.base import BLOCK, BlockLoader
from pipeline.distributed import World
from pipeline.layers.network import ExportedNetwork
from pipeline.progress import ProgressBar
from pipeline.types import Batch

IMAGES_A_ROUND = 2
"""Images for each thread between two meetings of the ranks."""


class SmoothingPass:
    """Computes the rows that are not stored yet.

    Args:
        network: the base classifier; it runs in float32.
        loader: the images.
        settings: of the smoothing.
        store: where finished rows go.
        device: where the network runs.
        leave_if_asked: called whenever a row is stored.
    """

    def __init__(
        self,
        network: ExportedNetwork,
        loader: BlockLoader,
        settings: Settings,
        store: RowStore,
        device: torch.device,
        leave_if_asked: Callable[[], None] = lambda: None,
    ) -> None:
        def classify(images: Tensor) -> Tensor:
            return network.logits(network.trunk(images)).argmax(1)

        self._loader, self._store, self._device = loader, store, device
        self._smoothed = SmoothedClassifier(classify, network.head.num_classes, settings)
        self._leave_if_asked = leave_if_asked
        self._block: tuple[int, Batch] | None = None

    def run(self, world: World, chosen: Sequence[int], threads: int) -> None:
        """Do this rank's share; returns, on every rank, when all rows are stored.

        Args:
            world: the ranks; each must call this.
            chosen: indices of images, ascending.
            threads: images at a time on this rank.

        Raises:
            RuntimeError: another rank failed.
        """
        missing = distributed.on_main(
            lambda: [index for index in chosen if self._store.read(index) is None]
        )
        a_round = world.size * threads * IMAGES_A_ROUND
        done = len(chosen) - len(missing)
        with (
            single_threaded_mathematics(),
            conventional_arithmetic(),
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
            ProgressBar("smooth", len(chosen), unit="img", initial=done) as bar,
        ):
            for start in range(0, len(missing), a_round):
                share = missing[start : start + a_round][world.rank :: world.size]
                own, failure = 0, None
                try:
                    images = [self._image(index) for index in share]
                    labels = [self._label(index) for index in share]
                    for _ in pool.map(self._row, share, images, labels):
                        own += 1
                        bar.advance()
                        self._leave_if_asked()
                except Exception as error:
                    failure = error
                distributed.raise_together(failure)
                bar.advance(sum(distributed.gather_objects(own)) - own)

    def _row(self, index: int, image: Tensor, label: int) -> None:
        began = time.perf_counter()
        found = self._smoothed.certify(image, index)
        self._store.write(index, write_row(index, label, found, time.perf_counter() - began))

    def _image(self, index: int) -> Tensor:
        """[C, H, W] float32 in [0, 1], on the device."""
        pixels = self._of(index).images[index % BLOCK]
        return pixels.to(self._device).to(torch.float32) / 255

    def _label(self, index: int) -> int:
        return int(self._of(index).labels[index % BLOCK])

    def _of(self, index: int) -> Batch:
        """The block that holds an image; the last one is kept."""
        number = index // BLOCK
        if self._block is None or self._block[0] != number:
            [batch] = self._loader.blocks([number])
            self._block = number, batch
        return self._block[1]
