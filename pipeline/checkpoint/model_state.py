"""The weights of a checkpoint into a model, or a sentence that they are of another."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pipeline.checkpoint.fragments import SavedState


def load_model(saved: SavedState, module: nn.Module) -> None:
    """Put the part "model" into a module that this rank holds whole.

    Raises:
        ValueError: it is of another model.
    """
    check_model(saved, {name: tuple(value.shape) for name, value in module.state_dict().items()})
    module.load_state_dict(saved.part("model"))


def check_model(saved: SavedState, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse the state of another model.

    Args:
        shapes: of the parameters and buffers of this one.

    Raises:
        ValueError: a tensor is missing, left over or of another shape; it names the first.
    """
    theirs = set(saved.names("model"))
    for name in [*shapes, *sorted(theirs)]:
        fits = name in shapes and name in theirs
        if not fits or tuple(saved.shape("model", name)) != shapes[name]:
            raise ValueError(f"the checkpoint is of another model: tensor {name!r} differs")
