"""A checkpoint of another model is refused in a sentence, and the model is left as it was."""

import pytest
import torch
from torch import nn

from pipeline.checkpoint import WholeState, load_model


def test_weights_go_into_their_model() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    load_model(WholeState({"model": one.state_dict()}), other)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda tensors: tensors.pop("bias"), "bias"),
        (lambda tensors: tensors.update(scale=torch.ones(1)), "scale"),
        (lambda tensors: tensors.update(weight=torch.ones(2, 4)), "weight"),
    ],
)
def test_what_does_not_fit_is_named(change, name: str) -> None:
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    tensors = dict(nn.Linear(3, 2).state_dict())
    change(tensors)
    with pytest.raises(ValueError, match=f"of another model: tensor '{name}' differs"):
        load_model(WholeState({"model": tensors}), model)
    assert torch.equal(model.weight, before)


def test_what_a_part_has_besides_is_left_out() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    saved = WholeState({"average": {"updates": torch.tensor(7), **one.state_dict()}})
    load_model(saved, other, "average", besides={"updates"})
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
    with pytest.raises(ValueError, match="tensor 'updates' differs"):
        load_model(saved, other, "average")
