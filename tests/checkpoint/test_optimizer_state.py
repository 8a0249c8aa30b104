"""Optimizer state goes by the names of parameters: exact both ways, and never to the wrong one."""

from collections import OrderedDict

import pytest
import torch
from safetensors import torch as safetensors
from torch import nn

from pipeline.checkpoint import optimizer_tensors, restore_optimizer


def network(order: tuple[str, ...] = ("first", "second", "frozen")) -> nn.Sequential:
    """Layers of equal shape, so that exchanged moments would fit; the last has no gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict((name, nn.Linear(3, 3)) for name in order))
    model.get_submodule("frozen").requires_grad_(False)
    return model


def train(model: nn.Sequential, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3, generator=generator)).square().sum().backward()
        optimizer.step()


def nadam(model: nn.Module) -> torch.optim.Optimizer:
    """Two groups, in the other order than the model's parameters."""
    groups = [
        {"params": list(model.get_submodule(name).parameters())}
        for name in ("second", "first", "frozen")
    ]
    return torch.optim.NAdam(groups, lr=0.01)


def test_restored_from_a_file_it_goes_on_to_the_bit() -> None:
    model = network()
    optimizer = nadam(model)
    train(model, optimizer, 5, seed=1)
    data = safetensors.save(optimizer_tensors(optimizer, model))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, optimizer, 5, seed=2)

    again = network()
    again.load_state_dict(weights)
    resumed = nadam(again)
    restore_optimizer(resumed, again, safetensors.load(data))
    train(again, resumed, 5, seed=2)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for name, value in optimizer_tensors(optimizer, model).items():
        restored = optimizer_tensors(resumed, again)[name]
        assert torch.equal(restored, value) and restored.dtype == value.dtype, name


def test_names_tell_parameter_and_key() -> None:
    model = network()
    optimizer = nadam(model)
    assert optimizer_tensors(optimizer, model) == {}
    train(model, optimizer, 1, seed=1)
    keys = ("step", "mu_product", "exp_avg", "exp_avg_sq")
    assert optimizer_tensors(optimizer, model).keys() == {
        f"{layer}.{param}/{key}"
        for layer in ("first", "second") for param in ("weight", "bias") for key in keys
    }  # fmt: skip


def test_another_order_of_layers_keeps_each_its_own_moments() -> None:
    model = network()
    optimizer = nadam(model)
    train(model, optimizer, 3, seed=1)
    saved = optimizer_tensors(optimizer, model)
    turned = network(("second", "frozen", "first"))
    resumed = torch.optim.NAdam(turned.parameters())
    restore_optimizer(resumed, turned, saved)
    for name, value in saved.items():
        assert torch.equal(optimizer_tensors(resumed, turned)[name], value), name


def test_restored_state_is_a_copy() -> None:
    model = network()
    optimizer = nadam(model)
    train(model, optimizer, 1, seed=1)
    saved = optimizer_tensors(optimizer, model)
    before = {name: value.clone() for name, value in saved.items()}
    again = network()
    resumed = nadam(again)
    restore_optimizer(resumed, again, saved)
    train(again, resumed, 1, seed=3)
    assert [name for name in saved if not torch.equal(saved[name], before[name])] == []


def test_state_of_another_model_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"'third\.weight/exp_avg' belongs to no parameter"):
        restore_optimizer(nadam(model), model, {"third.weight/exp_avg": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match=r"'first\.weight/exp_avg' has the shape \[4, 3\]"):
        restore_optimizer(nadam(model), model, {"first.weight/exp_avg": torch.zeros(4, 3)})
