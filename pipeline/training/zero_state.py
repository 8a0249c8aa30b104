"""The sharded state of a model and its optimizer under ZeRO, as fragments, and back.

Notable:
- What a rank owns is copied as it is: nothing is gathered to save, and a load reads no more than
  the rank's own pieces. Values are moved, not computed: they are equal to the bit afterwards.
- The names are those of the bare model and of `pipeline.checkpoint.optimizer_state`: a checkpoint
  does not show which engine wrote it.
- ZeRO's flat groups have one step count for all their parameters. A state in which parameters have
  made different numbers of steps can be held by a replicated engine only, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.checkpoint.fragments import Fragment, Part, SavedState
from pipeline.checkpoint.model_state import check_model
from pipeline.training.zero_layout import Group, Layout


def sharded_state(
    layout: Layout, module: nn.Module, optimizer: torch.optim.Optimizer, is_main: bool
) -> dict[str, Part]:
    """What this rank has to save. See `Engine.state`.

    Args:
        layout: of the parameters.
        module: the bare model, for its buffers.
        optimizer: ours, whose parameters are the layout's flat tensors.
        is_main: this rank saves what all have: buffers, and scalars of the optimizer.
    """
    model: dict[str, Tensor | Fragment] = {}
    moments: dict[str, Tensor | Fragment] = {}
    if is_main:
        model.update({name: _copy(value) for name, value in saved_buffers(module).items()})
    for group in layout.groups:
        model.update(_fragments(group, group.flat))
        for key, value in optimizer.state.get(group.flat, {}).items():
            if value.dim():
                moments.update(_fragments(group, value, f"/{key}"))
            elif is_main:
                moments.update({f"{name}/{key}": _copy(value) for name in group.shapes})
    return {"model": model, "optimizer": moments}


@torch.no_grad()
def load_sharded_state(
    saved: SavedState, layout: Layout, module: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put back what the ranks of any engine saved. A collective. See `Engine.load_state`.

    Raises:
        ValueError: it is of another model, or cannot be sharded.
    """
    buffers = saved_buffers(module)
    shapes = {name: shape for group in layout.groups for name, shape in group.shapes.items()}
    check_model(saved, shapes | {name: tuple(buffer.shape) for name, buffer in buffers.items()})
    keys = _keys_by_parameter(saved, shapes)
    scalars = [_scalars(saved, group, keys) for group in layout.groups]

    for name, buffer in buffers.items():
        buffer.copy_(saved.whole("model", name))
    for group, values in zip(layout.groups, scalars, strict=True):
        for shard in group.shards:
            shard.of(group.flat).copy_(saved.piece("model", shard.name, shard.start, shard.stop))
        optimizer.state.pop(group.flat, None)
        # Every parameter of the group has the keys of its first.
        for key in keys[next(iter(group.shapes))]:
            state = optimizer.state[group.flat]
            state[key] = values[key] if key in values else _flat(saved, group, key)
    layout.publish()


def saved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that belong to the module's state, by name; not copied."""
    parameters = dict(module.named_parameters())
    return {name: value for name, value in module.state_dict().items() if name not in parameters}


def _keys_by_parameter(
    saved: SavedState, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
    """The keys of each parameter's optimizer state, sorted.

    Raises:
        ValueError: state belongs to no parameter, or to one of another shape.
    """
    keys: dict[str, list[str]] = {name: [] for name in shapes}
    for label in saved.names("optimizer"):
        name, _, key = label.rpartition("/")
        if name not in shapes:
            raise ValueError(f"optimizer state {label!r} belongs to no parameter of this model")
        found = saved.shape("optimizer", label)
        if found and found != shapes[name]:
            raise ValueError(
                f"optimizer state {label!r} has the shape {list(found)}, its parameter "
                f"{list(shapes[name])}"
            )
        keys[name].append(key)
    return keys


def _scalars(saved: SavedState, group: Group, keys: Mapping[str, list[str]]) -> dict[str, Tensor]:
    """The values of the group's optimizer state that are not shaped as a parameter, by key.

    Raises:
        ValueError: they are not the same for all parameters of the group.
    """
    first, *others = group.shapes
    values = {
        key: saved.whole("optimizer", f"{first}/{key}")
        for key in keys[first]
        if not saved.shape("optimizer", f"{first}/{key}")
    }
    for name in others:
        alike = keys[name] == keys[first] and all(
            torch.equal(saved.whole("optimizer", f"{name}/{key}"), value)
            for key, value in values.items()
        )
        if not alike:
            raise ValueError(
                f"the optimizer's steps of {first!r} and {name!r} differ, and ZeRO counts them "
                "together: go on with engine: accelerate, or with deepspeed.stage 0"
            )
    return values


def _flat(saved: SavedState, group: Group, key: str) -> Tensor:
    """This rank's part of a value that is shaped as the parameters, laid out as the group's."""
    flat = torch.zeros_like(group.flat, requires_grad=False)
    for shard in group.shards:
        label = f"{shard.name}/{key}"
        shard.of(flat).copy_(saved.piece("optimizer", label, shard.start, shard.stop))
    return flat


def _fragments(group: Group, flat: Tensor, suffix: str = "") -> dict[str, Fragment]:
    """Copies of this rank's part of a tensor that is laid out as the group's."""
    return {
        shard.name + suffix: Fragment(_copy(shard.of(flat)), shard.start, group.shapes[shard.name])
        for shard in group.shards
    }


def _copy(value: Tensor) -> Tensor:
    """On the CPU, and not changed by later steps."""
    return value.detach().to("cpu", copy=True)
