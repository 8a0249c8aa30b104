"""Norm bounds by the code for GPUs, on the CPU: true, and next to NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.certify.bounds import prove_bounds
from pipeline.lipschitz import device_spectral, tight
from pipeline.lipschitz.conv import conv2d_norm_bound
from pipeline.lipschitz.dense import dense_norm_bound
from pipeline.lipschitz.device import (
    factor_on,
    joined,
    proofs_on,
    proving_device,
    split,
    squares_on,
)
from pipeline.lipschitz.device_spectral import spectral_upper_on
from pipeline.lipschitz.rounding import squares_upper
from pipeline.lipschitz.spectral import spectral_upper
from pipeline.lipschitz.tight import tight_conv2d_norm_bound
from tests.certify.kinds import mixed_network

CPU = torch.device("cpu")


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("geometry", [(1, 1), (2, 2), (3, 0), (1, 0)])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (3, 5, 3, 3), (4, 4, 2, 3)])
def test_bounds_of_convolutions_are_those_of_numpy(
    geometry: tuple[int, int], shape: tuple[int, ...]
) -> None:
    stride, padding = geometry
    weight = draw(sum(shape), *shape)
    for prove in (conv2d_norm_bound, tight_conv2d_norm_bound):
        expected = prove(weight, 9, stride, padding)
        with proofs_on(CPU):
            found = prove(weight, 9, stride, padding)
        assert found.value == pytest.approx(expected.value, rel=3e-7)
        assert found.method == expected.method and found.evidence.keys() == expected.evidence.keys()


def test_semi_tori_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tight, "WHOLE_WORK", 0.0)
    monkeypatch.setattr(tight, "WHOLE_WORK_ON_DEVICE", 0.0)
    weight = draw(3, 4, 4, 3, 3)
    expected = tight_conv2d_norm_bound(weight, 8, 1, 1)
    with proofs_on(CPU):
        found = tight_conv2d_norm_bound(weight, 8, 1, 1)
    assert found.method == expected.method == "semi-torus-cholesky"
    assert found.value == pytest.approx(expected.value, rel=2e-6)
    assert found.evidence["torus"] == expected.evidence["torus"]


def test_bounds_of_dense_layers_lie_just_above_the_norm() -> None:
    for seed, shape in enumerate([(5, 9), (9, 5), (1, 7), (30, 30)]):
        weight = draw(seed, *shape)
        with proofs_on(CPU):
            bound = dense_norm_bound(weight).value
        assert 0 <= bound / np.linalg.norm(weight, 2) - 1 < 2e-6


def test_a_whole_network_is_proved_there() -> None:
    network = mixed_network("tanh", 0)
    expected = prove_bounds(network)
    with proofs_on(CPU):
        assert proving_device() == CPU
        found = prove_bounds(network)
        tighter = prove_bounds(network, tight=True)
    assert proving_device() is None
    for one, other, third in zip(found, expected, tighter, strict=True):
        assert one.value == pytest.approx(other.value, rel=3e-7)
        assert third.value <= one.value * (1 + 3e-6)


@pytest.mark.parametrize("kinds", [1, 2])
def test_any_q_and_any_factor_give_a_true_bound(
    kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = draw(kinds, 7, kinds, 6, 4)
    whole = parts[:, 0] + (1j * parts[:, 1] if kinds == 2 else 0)
    truth = np.linalg.norm(whole, 2, axis=(1, 2)).max()
    tensor = torch.from_numpy(parts)
    for step in (-0.9, -1e-3, -1e-9, -1e-15, 0.0, 1e-15, 1e-9, 1.0, 1e300, np.nan, -5.0):
        bound = spectral_upper_on(tensor, truth**2 * (1 + step)).value
        assert bound >= truth * (1 - 1e-15)
    best = spectral_upper_on(tensor)
    assert best.method == "cholesky" and best.value <= truth * (1 + 2e-7)
    assert best.value == pytest.approx(spectral_upper(parts).value, rel=3e-7)
    random = np.random.default_rng(5)
    for scale in (0.0, 1e-9, 1.0, 1e200, np.nan):

        def spoiled(shifted: torch.Tensor, scale: float = scale) -> torch.Tensor:
            noise = torch.from_numpy(scale * random.standard_normal(shifted.shape))
            return factor_on(shifted) + noise if scale else 0 * shifted

        monkeypatch.setattr(device_spectral, "factor_on", spoiled)
        for share in (0.25, 1 + 1e-9, 4.0):
            assert spectral_upper_on(tensor, truth**2 * share).value >= truth * (1 - 1e-15)


def test_what_is_out_of_range_is_infinite_or_true() -> None:
    parts = draw(0, 2, 2, 4, 3)
    for exponent in (-1000, -600, 300, 505):
        scaled = np.ldexp(parts, exponent)
        norms = np.linalg.norm(parts[:, 0] + 1j * parts[:, 1], 2, axis=(1, 2))
        truth = np.ldexp(norms.max(), exponent)
        assert spectral_upper_on(torch.from_numpy(scaled)).value >= truth * (1 - 1e-15)
    for bad in (np.nan, np.inf):
        spoiled = parts.copy()
        spoiled[1, 0, 2, 1] = bad
        assert spectral_upper_on(torch.from_numpy(spoiled)).value == np.inf


def test_operations_are_those_of_numpy() -> None:
    parts = draw(1, 5, 2, 4, 4)
    tensor = torch.from_numpy(parts)
    assert np.allclose(squares_on(tensor), squares_upper(parts), rtol=1e-14)
    assert torch.equal(split(joined(tensor), 2), tensor)
    assert torch.equal(split(joined(tensor[:, :1]), 1), tensor[:, :1])
    positive = tensor.clone()
    positive[:, 0] = positive[:, 0] + positive[:, 0].mT + 20 * torch.eye(4)
    positive[:, 1] = positive[:, 1] - positive[:, 1].mT
    factor = joined(factor_on(positive))
    assert torch.allclose(factor.mH @ factor, joined(positive), atol=1e-12)
