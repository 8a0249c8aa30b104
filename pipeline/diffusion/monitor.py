"""Looks at what a generator draws while it trains: a grid, and a Fréchet distance.

Notable: every look draws the same samples (seed 0) with the averaged weights, so that grids show
the training and not the chance. Batches are divided over the ranks.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pipeline.config import DiffusionConfig
from pipeline.data.base import BLOCK, BlockLoader
from pipeline.data.spread import spread
from pipeline.diffusion.classifier import Judge
from pipeline.diffusion.frechet import Moments, frechet_distance
from pipeline.diffusion.network import Denoiser
from pipeline.diffusion.sampler import Sampler, Settings, classes_and_numbers
from pipeline.distributed import broadcast_object, my_share
from pipeline.training.callbacks import Callback, EpochRecord
from pipeline.training.picture_grid import picture_grid


class SampleMonitor(Callback):
    """Adds `samples/grid` to the epoch's pictures and `frechet_distance` to its numbers.

    Args:
        network: with the weights that samples are drawn with.
        diffusion: T, and what the network predicts.
        judge: gives features; None for no distance.
        training: exact training images, for the same features.
        device: of the network.
    """

    def __init__(
        self,
        network: Denoiser,
        diffusion: DiffusionConfig,
        judge: Judge | None,
        training: BlockLoader,
        device: torch.device,
    ) -> None:
        monitor = diffusion.monitor
        settings = Settings(
            diffusion.timesteps,
            monitor.steps,
            guidance=monitor.guidance,
            prediction=diffusion.prediction,
        )
        steps = min(monitor.steps, settings.most_steps())
        self._sampler = Sampler(network, replace(settings, steps=steps), device)
        self._num_classes = network.num_classes
        self._monitor = monitor
        self._judge = judge
        self._training = training
        self._reference: Moments | None = None

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Look, if it is time."""
        monitor = self._monitor
        due = record.last or (monitor.every and (record.epoch + 1) % monitor.every == 0)
        if not (due and monitor.images):
            return
        drawn: Moments | None = None
        grid = None
        batches = -(-monitor.images // monitor.batch_size)
        for batch in my_share(batches):
            first = batch * monitor.batch_size
            indices = torch.arange(first, min(first + monitor.batch_size, monitor.images))
            images = self._sampler(*classes_and_numbers(indices, self._num_classes))
            if batch == 0:
                grid = picture_grid(images / 255)
            if self._judge is not None:
                features = self._judge.features(images)
                drawn = drawn or Moments.empty(features.shape[1], features.device)
                drawn.add(features)
        grid = broadcast_object(grid)
        if grid is not None:
            record.pictures["samples/grid"] = grid
        if self._judge is not None:
            reference = self._moments_of_training(self._judge)
            drawn = drawn or reference.none()  # a rank without a batch adds nothing
            distance = frechet_distance(drawn.over_ranks(), reference)
            record.numbers["frechet_distance"] = distance

    def _moments_of_training(self, judge: Judge) -> Moments:
        """Of training images from all over the set, once a start."""
        if self._reference is None:
            own: Moments | None = None
            chosen = spread(self._monitor.reference, self._training.info.num_samples)
            mine = [chosen[number] for number in my_share(len(chosen))]
            # A rank without an image looks at one to learn the number of features.
            for start in range(0, max(len(mine), 1), BLOCK):
                some = mine[start : start + BLOCK]
                features = judge.features(self._training.pictures(some or [0]))
                own = own or Moments.empty(features.shape[1], features.device)
                if some:
                    own.add(features)
            assert own is not None
            self._reference = own.over_ranks()
        return self._reference
