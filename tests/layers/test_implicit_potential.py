"""The implicit step: it goes to the exact one, and is 1-Lipschitz wherever it stops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.layers.implicit_potential import (
    ExportedImplicitPotential,
    ImplicitPotentialDense,
    implicit_lipschitz,
    implicit_step,
)


def exported() -> ExportedImplicitPotential:
    torch.manual_seed(3)
    layer = ImplicitPotentialDense(5, 7)
    with torch.no_grad():
        layer.weight *= 2
    (twin,) = layer.export("x", (5,))
    assert isinstance(twin, ExportedImplicitPotential)
    return twin


def test_many_iterations_solve_the_equation() -> None:
    """z + Wᵀrelu(Wz + b) = x, and z is the minimiser of ½‖z − x‖² + ½‖relu(Wz + b)‖²."""
    twin = replace(exported(), iterations=400)
    x = torch.randn(20, 5, dtype=torch.float64)
    z = twin.forward(x)
    weight, bias = (torch.from_numpy(array).double() for array in (twin.weight, twin.bias))
    hidden = torch.relu(z @ weight.T + bias)
    assert torch.allclose(z + hidden @ weight, x, atol=1e-10)

    def value(point: torch.Tensor) -> torch.Tensor:
        kinks = torch.relu(point @ weight.T + bias)
        return 0.5 * (point - x).square().sum(1) + 0.5 * kinks.square().sum(1)

    for _ in range(20):
        assert bool((value(z + 0.01 * torch.randn_like(z)) >= value(z)).all())


@pytest.mark.parametrize("iterations", [1, 2, 5, 30])
def test_no_truncation_expands(iterations: int) -> None:
    twin = replace(exported(), iterations=iterations)
    assert twin.norm_bound().value == 1.0
    x = torch.randn(200, 5, dtype=torch.float64)
    y = x + 1e-3 * torch.randn_like(x)
    moved = (twin.forward(x) - twin.forward(y)).norm(dim=1)
    assert bool((moved <= (x - y).norm(dim=1) * (1 + 1e-12)).all())


def test_a_longer_step_expands_and_is_bounded_by_the_recursion() -> None:
    """One hidden unit that is active, one iteration: the slope along it is 1 − τ‖W‖²."""
    weight, bias = np.array([[2.0, 0.0]], np.float32), np.array([100.0], np.float32)
    step = np.array([0.625], np.float32)  # 0.625·(2 + 4) > 2
    twin = ExportedImplicitPotential("x", (2,), weight, bias, step, iterations=1)
    x = torch.zeros(1, 2, dtype=torch.float64)
    y = x + torch.tensor([[1e-3, 0.0]], dtype=torch.float64)
    moved = float((twin.forward(x) - twin.forward(y)).norm() / (x - y).norm())
    assert moved == pytest.approx(0.625 * 4 - 1) and moved > 1
    assert moved <= twin.norm_bound().value == pytest.approx(0.625 * 5 - 1 + 0.625, rel=1e-5)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(norm=st.floats(0, 1e6))
def test_the_frozen_step_is_proved_and_nearly_the_longest(norm: float) -> None:
    step = float(implicit_step(norm))
    assert implicit_lipschitz(step, norm, 5) == 1.0
    assert step >= 2 / (2 + norm**2) * (1 - 1e-6)
