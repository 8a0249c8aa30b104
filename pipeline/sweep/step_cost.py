"""What a training step of a config costs: seconds and memory, measured and not estimated.

Notable:
- On a CPU it is the process's own CPU time, which other programs on the machine hardly change; on a
  GPU it is the clock. Reading and augmenting images is not in it: it is the same for all networks.
- It is the loop of a real run, on noise, in a process of its own, so that its peak of memory is
  that of this network.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from pipeline.config import RunConfig
from pipeline.data.base import DatasetInfo
from pipeline.models import model_of
from pipeline.objectives import build_objective
from pipeline.training.build_engine import build_engine
from pipeline.training.callbacks import Callback, StepRecord
from pipeline.training.determinism import make_deterministic
from pipeline.training.loop import Loop, Plan
from pipeline.training.peak_memory import peak_memory
from pipeline.types import Batch, Epsilon

WARM_UP = 4
"""Steps before the measured ones: first allocations, and the optimizer's state."""
MEASURED = 12


@dataclass(frozen=True)
class StepCost:
    """Of one process."""

    seconds: float
    """Of the fastest measured step: what other programs add is not the network's."""
    gigabytes: float
    """Most memory held: of the whole process on a CPU, of tensors on a GPU."""
    threads: int
    """Of torch; seconds on a CPU are summed over them."""


def measure(config: RunConfig) -> StepCost:
    """The cost of a step, measured in a process of its own.

    Raises:
        ValueError: the network cannot be built.
        NonFiniteError: as in training.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measure, config).result()


def _measure(config: RunConfig) -> StepCost:
    make_deterministic(config.seed)
    engine = build_engine(model_of(config.model), config)
    epsilon = float(Epsilon.parse(config.epsilon.target))
    clock = _Clock(engine.device)
    steps = WARM_UP + MEASURED
    plan = Plan(
        epochs=1,
        batch_size=config.training.batch_size,
        accumulation=config.training.accumulation,
        learning_rate=lambda step: 1e-6,
        epsilon=lambda step: epsilon,
        clip_norm=config.optimizer.clip_norm,
    )
    objective = build_objective(config.objective.name, **config.objective.options)
    Loop(engine, objective, _Noise(config, steps), plan, [clock]).run()
    pairs = zip(clock.times[WARM_UP:], clock.times[WARM_UP - 1 :], strict=False)
    seconds = min(after - before for after, before in pairs)
    return StepCost(seconds, peak_memory(engine.device), torch.get_num_threads())


class _Clock(Callback):
    """Notes the time after every step."""

    def __init__(self, device: torch.device) -> None:
        self.times: list[float] = []
        self._device = device

    def on_step_end(self, record: StepRecord) -> None:
        """See `Callback`."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self.times.append(time.perf_counter())
        else:
            self.times.append(time.process_time())


class _Noise:
    """`TrainLoader` of one batch of random images, over and over."""

    def __init__(self, config: RunConfig, steps: int) -> None:
        model, size = config.model, config.training.batch_size
        shape = (model.in_channels, model.image_size, model.image_size)
        self.steps_per_epoch = steps
        self.info = DatasetInfo("noise", size, shape, model.num_classes, (), exact=False)
        self._batch = Batch(
            torch.randint(0, 256, (size, *shape), dtype=torch.uint8),
            torch.randint(0, model.num_classes, (size,)),
            torch.arange(size),
            torch.zeros(size, dtype=torch.bool),
        )

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """See `TrainLoader`."""
        for _ in range(start_step, self.steps_per_epoch):
            yield self._batch

    def close(self) -> None:
        """Nothing is open."""
