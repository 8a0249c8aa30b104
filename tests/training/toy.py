"""A small training run on made-up images, put together without files or config."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from pipeline.config import OptimizerConfig
from pipeline.data.order import Order
from pipeline.distributed import World
from pipeline.models import build_model
from pipeline.objectives import build_objective
from pipeline.training.accelerate_engine import AccelerateEngine
from pipeline.training.callbacks import Callback, StepRecord
from pipeline.training.loop import Loop, Plan
from pipeline.training.optimizer import build_optimizer
from pipeline.types import Batch

ROOT = Path(__file__).parents[2]
CLASSES = 4
SAMPLES = 70
BATCH = 16  # 4 steps an epoch, 6 images left over
STEPS_PER_EPOCH = SAMPLES // BATCH


def images_and_labels(samples: int = SAMPLES) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures of a pattern for each class, [N, 1, 8, 8] uint8 and [N]."""
    draw = torch.Generator().manual_seed(0)
    patterns = torch.rand(CLASSES, 1, 8, 8, generator=draw)
    labels = torch.arange(samples) % CLASSES
    noise = 0.3 * torch.rand(samples, 1, 8, 8, generator=draw)
    return ((0.7 * patterns[labels] + noise) * 255).to(torch.uint8), labels


def batch_of(ids: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return Batch(images[ids], labels[ids], ids, torch.zeros(len(ids), dtype=torch.bool))


class ToyLoader:
    """A TrainLoader with the real order."""

    def __init__(self, world: World, batch_size: int = BATCH, samples: int = SAMPLES) -> None:
        self.images, self.labels = images_and_labels(samples)
        self.info = SimpleNamespace(spec="toy", num_samples=samples)
        self.order = Order(samples, batch_size, seed=3)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.world = world

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for row in self.order.epoch(epoch, start_step, self.world.rank, self.world.size):
            ids = torch.from_numpy(row["sample"].astype("int64"))
            yield batch_of(ids, self.images, self.labels)

    def close(self) -> None:
        pass


class ToyBlocks:
    """A BlockLoader with blocks of a few images."""

    def __init__(self, samples: int, block: int) -> None:
        self.images, self.labels = images_and_labels(samples)
        self.info = SimpleNamespace(num_samples=samples)
        self.ids = list(torch.arange(samples).split(block))
        self.num_blocks = len(self.ids)

    def blocks(self, indices: Sequence[int]) -> Iterator[Batch]:
        for index in indices:
            yield batch_of(self.ids[index], self.images, self.labels)


class Recorder(Callback):
    """Keeps every step's record."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def on_step_end(self, record: StepRecord) -> None:
        self.records.append(record)


def toy_model() -> nn.Module:
    torch.manual_seed(1)
    return build_model("liresnet", CLASSES, 8, 1, depth=2, width=8, features=16)


def toy_engine(precision: str = "fp32", model: nn.Module | None = None) -> AccelerateEngine:
    model = toy_model() if model is None else model
    optimizer = build_optimizer(model.parameters(), OptimizerConfig())
    return AccelerateEngine(model, optimizer, precision)


def toy_plan(**changes: Any) -> Plan:
    plan: dict[str, Any] = {
        "epochs": 5,
        "batch_size": BATCH,
        "accumulation": 1,
        "learning_rate": lambda step: 5e-3,
        "epsilon": lambda step: 0.01 * step,
    }
    return Plan(**{**plan, **changes})


def toy_loop(
    engine: AccelerateEngine | None = None,
    callbacks: Sequence[Callback] = (),
    objective: Any = None,
    wants_to_stop: Callable[[], bool] = lambda: False,
    **plan: Any,
) -> Loop:
    engine = engine or toy_engine()
    return Loop(
        engine,
        objective or build_objective("emma"),
        ToyLoader(engine.world, plan.get("batch_size", BATCH)),
        toy_plan(**plan),
        callbacks,
        wants_to_stop,
    )
