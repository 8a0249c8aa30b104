"""The engine and the optimizer that a config asks for."""

from __future__ import annotations

from torch import nn

from pipeline.config import RunConfig
from pipeline.training.accelerate_engine import AccelerateEngine
from pipeline.training.deepspeed_engine import DeepSpeedEngine
from pipeline.training.engine import Engine
from pipeline.training.optimizer import build_optimizer


def build_engine(model: nn.Module, config: RunConfig) -> Engine:
    """Prepare `model` for training. A collective.

    Args:
        model: equal on every rank.
        config: its keys `engine`, `deepspeed`, `optimizer` and `training.precision`.

    Raises:
        ValueError: the engine's library cannot be imported.
    """
    optimizer = build_optimizer(model.parameters(), config.optimizer)
    precision = config.training.precision
    if config.engine == "deepspeed":
        return DeepSpeedEngine(model, optimizer, precision, config.deepspeed.stage)
    return AccelerateEngine(model, optimizer, precision)
