"""An optimizer's state as tensors named after the parameters, and back.

Notable: torch numbers the parameters of an optimizer by position, so that a changed order of
layers would silently exchange their moments. By name it is an error. Hyperparameters (learning
rate, betas) are not state: they come from the config and the schedules.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """All state as {"parameter/key": tensor}, e.g. "stem.weight/exp_avg"; not copied.

    Args:
        optimizer: every value of its state is a tensor (of any shape, so a step count too).
        model: the bare model whose parameters it updates, not a wrapper with a prefix.
    """
    tensors: dict[str, Tensor] = {}
    for name, param in _named_parameters(optimizer, model):
        for key, value in optimizer.state.get(param, {}).items():
            assert isinstance(value, Tensor), f"optimizer state {key!r} of {name} is no tensor"
            tensors[f"{name}/{key}"] = value
    return tensors


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave, to the bit. `tensors` are not kept.

    Raises:
        ValueError: a tensor belongs to no parameter of the model, or to one of another shape.
    """
    numbers = {name: number for number, (name, _) in enumerate(_named_parameters(optimizer, model))}
    shapes = {name: param.shape for name, param in model.named_parameters()}
    state: dict[int, dict[str, Tensor]] = {}
    for label, value in tensors.items():
        name, _, key = label.rpartition("/")
        if name not in numbers:
            raise ValueError(f"optimizer state {label!r} belongs to no parameter of this model")
        if value.dim() and value.shape != shapes[name]:
            raise ValueError(
                f"optimizer state {label!r} has the shape {list(value.shape)}, its parameter "
                f"{list(shapes[name])}"
            )
        state.setdefault(numbers[name], {})[key] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _named_parameters(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> Iterator[tuple[str, Tensor]]:
    """Name and parameter, in the order in which `optimizer.state_dict` numbers them."""
    names = {param: name for name, param in model.named_parameters()}
    for group in optimizer.param_groups:
        for param in group["params"]:
            yield names[param], param
