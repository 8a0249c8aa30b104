"""The weights of a checkpoint into a model, or a sentence that they are of another."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from pipeline.checkpoint.fragments import SavedState


def load_model(
    saved: SavedState, module: nn.Module, part: str = "model", besides: Collection[str] = ()
) -> None:
    """Put a part's weights into a module that this rank holds whole.

    Args:
        besides: tensors of the part that are no weights.

    Raises:
        ValueError: it is of another model.
    """
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_model(saved, shapes, part, besides)
    module.load_state_dict({name: saved.whole(part, name) for name in shapes})


def check_model(
    saved: SavedState,
    shapes: Mapping[str, tuple[int, ...]],
    part: str = "model",
    besides: Collection[str] = (),
) -> None:
    """Refuse the state of another model.

    Args:
        shapes: of the parameters and buffers of this one.
        part, besides: as of `load_model`.

    Raises:
        ValueError: a tensor is missing, left over or of another shape; it names the first.
    """
    theirs = set(saved.names(part)) - set(besides)
    for name in [*shapes, *sorted(theirs)]:
        fits = name in shapes and name in theirs
        if not fits or tuple(saved.shape(part, name)) != shapes[name]:
            raise ValueError(f"the checkpoint is of another model: tensor {name!r} differs")
