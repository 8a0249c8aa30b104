"""NAdam + Lookahead against torch's NAdam and a plain Lookahead around it."""

import copy
import itertools

import pytest
import torch
from torch import Tensor

from pipeline.config import OptimizerConfig
from pipeline.training.optimizer import NAdamLookahead, build_optimizer

SHAPES = [(3, 5), (7,), (), (2, 3, 4, 1), (1,)]


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES
    ]


def set_gradients(params: list[torch.nn.Parameter], step: int) -> None:
    """Gradients over eight orders of magnitude, fixed by the step."""
    generator = torch.Generator().manual_seed(1000 + step)
    for index, param in enumerate(params):
        noise = torch.randn(param.shape, generator=generator).to(param.dtype)
        param.grad = noise * 10.0 ** (index * 2 - 6)


def run(optimizer: torch.optim.Optimizer, params: list, steps: range) -> list[list[Tensor]]:
    """The parameters after each of `steps`, with a learning rate that changes at every step."""
    history = []
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 0.05 / (1 + 0.1 * step)
        set_gradients(params, step)
        optimizer.step()
        history.append([param.detach().clone() for param in params])
    return history


def assert_same(left: list[list[Tensor]], right: list[list[Tensor]]) -> None:
    assert len(left) == len(right)
    for a, b in zip(itertools.chain(*left), itertools.chain(*right), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_lookahead_it_is_torch_nadam_to_the_bit(
    dtype: torch.dtype, weight_decay: float
) -> None:
    mine, theirs = parameters(dtype=dtype), parameters(dtype=dtype)
    own = NAdamLookahead(mine, lookahead_steps=0, weight_decay=weight_decay)
    reference = torch.optim.NAdam(theirs, weight_decay=weight_decay, foreach=False)
    assert_same(run(own, mine, range(200)), run(reference, theirs, range(200)))
    for a, b in zip(mine, theirs, strict=True):
        assert own.state[a].keys() == reference.state[b].keys()
        for key, value in own.state[a].items():
            assert torch.equal(value, reference.state[b][key]), key
            assert value.dtype == reference.state[b][key].dtype, key


@pytest.mark.parametrize(("k", "alpha"), [(6, 0.5), (1, 0.3), (5, 0.8), (4, 1.0)])
def test_lookahead_against_a_plain_one(k: int, alpha: float) -> None:
    mine, theirs = parameters(), parameters()
    own = NAdamLookahead(mine, lookahead_steps=k, lookahead_alpha=alpha)
    got = run(own, mine, range(40))

    reference = torch.optim.NAdam(theirs, foreach=False)
    slow = [param.detach().clone() for param in theirs]
    for step in range(40):
        run(reference, theirs, range(step, step + 1))
        if (step + 1) % k == 0:
            for index, param in enumerate(theirs):
                slow[index] = slow[index] + alpha * (param.detach() - slow[index])
                param.data.copy_(slow[index])
        for a, b in zip(got[step], theirs, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-6)
    for param, expected in zip(mine, slow, strict=True):
        torch.testing.assert_close(own.state[param]["slow"], expected, rtol=1e-5, atol=1e-6)


def test_first_set_back_averages_with_the_initial_weights() -> None:
    start = parameters()
    fast, ahead = parameters(), parameters()
    plain = run(NAdamLookahead(fast, lookahead_steps=0), fast, range(6))
    with_slow = run(NAdamLookahead(ahead, lookahead_steps=6), ahead, range(6))
    assert_same(plain[:5], with_slow[:5])
    for initial, before, after in zip(start, plain[5], with_slow[5], strict=True):
        torch.testing.assert_close(after, (initial.detach() + before) / 2)


def test_flat_partitions_give_the_same_as_whole_parameters() -> None:
    """ZeRO's view: all parameters flattened into one vector, cut where no parameter ends."""
    whole = parameters()
    flat = torch.cat([param.detach().flatten() for param in parameters()])
    cut = [torch.nn.Parameter(part.clone()) for part in flat.split(17)]
    one, many = NAdamLookahead(whole), NAdamLookahead(cut)
    for step in range(20):
        set_gradients(whole, step)
        gradient = torch.cat([param.grad.flatten() for param in whole if param.grad is not None])
        for param, part in zip(cut, gradient.split(17), strict=True):
            param.grad = part.clone()
        one.step()
        many.step()
    expected = torch.cat([param.detach().flatten() for param in whole])
    assert torch.equal(torch.cat([param.detach() for param in cut]), expected)


def test_partitions_swapped_in_one_at_a_time() -> None:
    """ZeRO-3's way: the group's parameters are replaced before each of several small steps."""
    together, apart = parameters(), parameters()
    one, many = NAdamLookahead(together), NAdamLookahead(apart)
    for step in range(14):
        run(one, together, range(step, step + 1))
        set_gradients(apart, step)
        for param in apart:
            many.param_groups[0]["params"] = [param]
            many.param_groups[0]["lr"] = one.param_groups[0]["lr"]
            many.step()
    assert_same([together], [apart])


def test_a_parameter_without_gradient_keeps_its_own_count() -> None:
    params = parameters()
    optimizer = NAdamLookahead(params, lookahead_steps=2)
    alone = parameters()[:1]
    reference = NAdamLookahead(alone, lookahead_steps=2)
    before = params[1].detach().clone()
    for step in range(9):
        set_gradients(params, step)
        set_gradients(alone, step)
        params[1].grad = None
        if step == 4:
            params[0].grad = alone[0].grad = None
        optimizer.step()
        reference.step()
    assert torch.equal(params[1], before)
    assert params[1] not in optimizer.state
    assert optimizer.state[params[0]]["step"].item() == 8
    assert torch.equal(params[0], alone[0])


@pytest.mark.parametrize("steps_before", [1, 5, 6, 7])
def test_state_dict_round_trip_goes_on_to_the_bit(steps_before: int) -> None:
    straight = parameters()
    expected = run(NAdamLookahead(straight), straight, range(20))

    first = parameters()
    broken = NAdamLookahead(first)
    run(broken, first, range(steps_before))
    second = [torch.nn.Parameter(param.detach().clone()) for param in first]
    resumed = NAdamLookahead(second)
    resumed.load_state_dict(copy.deepcopy(broken.state_dict()))
    assert_same(expected[steps_before:], run(resumed, second, range(steps_before, 20)))


def test_loading_keeps_mu_product_exact_for_narrow_parameters() -> None:
    params = parameters(dtype=torch.bfloat16)
    optimizer = NAdamLookahead(params)
    run(optimizer, params, range(3))
    saved = optimizer.state_dict()
    again = NAdamLookahead(params)
    again.load_state_dict(saved)
    value = again.state[params[0]]["mu_product"]
    assert value.dtype == torch.float32
    assert value.item() == saved["state"][0]["mu_product"].item()


def test_build_optimizer_reads_its_section() -> None:
    section = OptimizerConfig(lr=0.2, betas=(0.8, 0.99), weight_decay=0.3, clip_norm=1.0)
    (group,) = build_optimizer(parameters(), section).param_groups
    for key in ("lr", "betas", "eps", "weight_decay", "momentum_decay", "lookahead_steps"):
        assert group[key] == getattr(section, key)
    with pytest.raises(ValueError, match=r"betas \(1.0, 0.9\) must each lie in"):
        build_optimizer(parameters(), OptimizerConfig(betas=(1.0, 0.9)))


def test_adam_is_torchs_and_takes_no_key_of_nadam() -> None:
    adam = build_optimizer(parameters(), OptimizerConfig(name="adam", lr=0.01))
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["betas"]) == (0.01, (0.9, 0.999))
    with pytest.raises(ValueError, match="lookahead_steps belongs to nadam"):
        OptimizerConfig(name="adam", lookahead_steps=0)
