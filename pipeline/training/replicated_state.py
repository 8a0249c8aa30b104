"""The state of a model that every rank holds whole, and back: one process, DDP, ZeRO stage 0."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.checkpoint import load_model, optimizer_tensors, restore_optimizer
from pipeline.checkpoint.fragments import Part, SavedState


def replicated_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, is_main: bool
) -> dict[str, Part]:
    """Everything on rank 0, nothing on the others. See `Engine.state`."""
    if not is_main:
        return {"model": {}, "optimizer": {}}
    return {
        "model": _on_cpu(module.state_dict()),
        "optimizer": _on_cpu(optimizer_tensors(optimizer, module)),
    }


def load_replicated_state(
    saved: SavedState, module: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put back what the ranks of any engine saved. See `Engine.load_state`.

    Raises:
        ValueError: it is of another model.
    """
    load_model(saved, module)
    restore_optimizer(optimizer, module, saved.part("optimizer"))


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that later steps do not change."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
