"""Pieces of tensors: what is not a piece is refused, and whole tensors can be read in pieces."""

import pytest
import torch

from pipeline.checkpoint.fragments import Fragment, WholeState


def test_a_fragment_lies_within_its_tensor() -> None:
    values = torch.arange(3.0)
    assert Fragment(values, 9, (3, 4)).stop == 12
    for start in (-1, 10):
        with pytest.raises(AssertionError, match="within"):
            Fragment(values, start, (3, 4))
    with pytest.raises(AssertionError, match="flat"):
        Fragment(values.view(1, 3), 0, (3, 4))


def test_whole_tensors_are_read_in_pieces() -> None:
    weight = torch.arange(12.0).view(3, 4).t()  # not contiguous: positions are the tensor's own
    state = WholeState({"model": {"b": weight, "a": torch.tensor(7)}})
    assert state.names("model") == ["a", "b"] and state.names("optimizer") == []
    assert state.shape("model", "b") == (4, 3) and state.shape("model", "a") == ()
    assert state.piece("model", "b", 2, 5).tolist() == weight.flatten()[2:5].tolist()
    assert torch.equal(state.whole("model", "a"), torch.tensor(7))
    whole = state.part("model")["b"]
    whole.zero_()
    assert torch.equal(state.whole("model", "b"), weight), "what is read is a copy"
    with pytest.raises(KeyError):
        state.shape("model", "c")
