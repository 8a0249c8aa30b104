"""The random generators of each rank come back as they were."""

import pytest
import torch

from pipeline.checkpoint import WholeState, gather_rng_states, restore_rng_state, rng


def test_the_same_numbers_follow() -> None:
    torch.manual_seed(5)
    states = gather_rng_states()
    assert states["rank0.cpu"].dtype == torch.uint8
    expected = torch.rand(4)
    torch.manual_seed(6)
    restore_rng_state(WholeState({"rng": states}), rank=0)
    assert torch.equal(torch.rand(4), expected)


def test_each_rank_gets_its_own_and_a_new_one_keeps_its(monkeypatch: pytest.MonkeyPatch) -> None:
    of_rank = []
    for seed in (7, 8):
        torch.manual_seed(seed)
        of_rank.append({"cpu": torch.get_rng_state()})
    monkeypatch.setattr(rng, "gather_objects", lambda mine: of_rank)
    states = gather_rng_states()
    assert states.keys() == {"rank0.cpu", "rank1.cpu"}
    for rank, seed in ((0, 7), (1, 8), (2, 9)):  # rank 2 is not in the checkpoint
        torch.manual_seed(seed)
        expected = torch.rand(4)
        torch.manual_seed(9)
        restore_rng_state(WholeState({"rng": states}), rank)
        assert torch.equal(torch.rand(4), expected), rank
