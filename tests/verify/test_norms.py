"""Re-proof of convolution norms: geometry against explicit matrices, claims true and false."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.verify.norms import Proof, is_valid, prove_convolution, prove_dense
from pipeline.verify.torus import (
    Axis,
    Torus,
    block_error,
    frequencies,
    frequency_blocks,
    polyphase,
)

HALF = Fraction(1, 2)
# (size, kernel, stride, padding)
GEOMETRIES = [
    (4, 3, 1, 1),
    (5, 3, 1, 0),
    (5, 3, 1, 2),
    (4, 3, 1, 3),
    (6, 1, 1, 0),
    (8, 5, 2, 2),
    (7, 3, 2, 1),
    (9, 7, 4, 3),
    (8, 4, 4, 0),
    (9, 4, 4, 0),
    (5, 2, 1, 1),
    (6, 1, 2, 1),
    (1, 3, 1, 1),
    (28, 14, 14, 0),
]


def axes_of(geometry: tuple[int, int, int, int]) -> tuple[Axis, Axis]:
    return Axis(*geometry), Axis(*geometry)


def explicit_norm(weight: np.ndarray, geometry: tuple[int, int, int, int]) -> float:
    size, _, stride, padding = geometry
    inputs = weight.shape[1]
    units = torch.eye(inputs * size * size, dtype=torch.float64).view(-1, inputs, size, size)
    rows = F.conv2d(units, torch.from_numpy(weight), stride=stride, padding=padding).flatten(1)
    return float(np.linalg.norm(rows.numpy(), 2))


def prove(weight: np.ndarray, geometry: tuple[int, int, int, int], claim: float) -> Proof:
    return prove_convolution(weight, axes_of(geometry), claim, None, lambda done, total: None)


def torus_norm(weight: np.ndarray, geometry: tuple[int, int, int, int], torus: Torus) -> float:
    axes = axes_of(geometry)
    taps = polyphase(weight, axes)
    chunks = frequency_blocks(taps, axes, frequencies(axes, torus))
    blocks = np.concatenate([chunk[:, 0] + 1j * chunk[:, 1] for chunk in chunks])
    return float(np.linalg.svd(blocks, compute_uv=False).max())


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("kind", ["gaussian", "positive", "alternating"])
def test_no_claim_below_the_norm_is_proved(geometry: tuple[int, int, int, int], kind: str) -> None:
    random = np.random.default_rng(11)
    kernel = geometry[1]
    weight = random.standard_normal((3, 2, kernel, kernel))
    if kind == "positive":
        weight = np.abs(weight)
    elif kind == "alternating":
        weight = np.abs(weight) * (-1.0) ** np.add.outer(np.arange(kernel), np.arange(kernel))
    norm = explicit_norm(weight, geometry)
    assert not prove(weight, geometry, norm * (1 - 1e-9)).holds
    least = Axis(*geometry).least_torus
    twists = [(0, 0), (0, HALF), (HALF, 0), (HALF, HALF), (Fraction(1, 3), Fraction(2, 7))]
    for pair in twists:
        torus = Torus((least, least + 1), (Fraction(pair[0]), Fraction(pair[1])))
        assert norm <= torus_norm(weight, geometry, torus) * (1 + 1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_bound_of_a_torus_is_proved(geometry: tuple[int, int, int, int]) -> None:
    random = np.random.default_rng(5)
    weight = random.standard_normal((3, 4, geometry[1], geometry[1]))
    least = Axis(*geometry).least_torus
    for twist in (Fraction(0), HALF):
        torus = Torus((least, least), (twist, twist))
        claim = torus_norm(weight, geometry, torus) * (1 + 1e-6)
        proof = prove(weight, geometry, claim)
        assert proof.holds and proof.bound <= claim


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_corner_of_the_torus_is_the_convolution(geometry: tuple[int, int, int, int]) -> None:
    """One axis, tap for tap: integers that tell every tap apart."""
    axis = Axis(*geometry)
    kernel = 10.0 ** np.arange(axis.kernel)
    taps = polyphase(kernel[None, None, :, None], (axis, Axis(1, 1, 1, 0)))  # [T, 1, 1, s]
    size = axis.least_torus
    phases = -(-axis.inputs // axis.stride)
    corner = np.zeros((axis.outputs, phases, axis.stride))
    for i in range(axis.outputs):
        for offset in range(-axis.before, axis.after + 1):
            column = (i + offset) % size
            if column < phases:
                corner[i, column] += taps[offset + axis.before, 0, 0]
    matrix = corner.reshape(axis.outputs, -1)
    expected = np.zeros_like(matrix)
    for i in range(axis.outputs):
        for tap in range(axis.kernel):
            place = axis.stride * i + tap - axis.padding
            if 0 <= place < axis.inputs:
                expected[i, place] += kernel[tap]
    if axis.stride == 1 and axis.padding > axis.kernel - 1:
        spare = axis.padding - (axis.kernel - 1)  # rows that see padding only, dropped first
        matrix, expected = matrix[spare:-spare], expected[spare:-spare]
    matrix[:, axis.inputs :] = 0  # samples beyond the input are zeros
    np.testing.assert_array_equal(matrix, expected)


def test_circ_n_is_not_offered() -> None:
    """The torus of the input's own size lies below the norm of a padded convolution."""
    weight = np.ones((1, 1, 3, 3))
    axes = axes_of((4, 3, 1, 1))
    assert not is_valid(Torus((4, 4), (HALF, HALF)), axes)
    assert is_valid(Torus((5, 5), (HALF, HALF)), axes)
    hint = Torus((4, 4), (HALF, HALF))
    claim = float(np.linalg.norm(np.array([1 + 2 * np.cos(np.pi / 4)])) ** 2)
    proof = prove_convolution(weight, axes, claim, hint, lambda done, total: None)
    assert claim < explicit_norm(weight, (4, 3, 1, 1))
    assert not proof.holds


def test_half_twist_gives_the_norm_of_the_tridiagonal_matrix() -> None:
    weight = np.ones((1, 1, 3, 3))
    norm = float((1 + 2 * np.cos(np.pi / 17)) ** 2)
    proof = prove(weight, (16, 3, 1, 1), norm * (1 + 1e-9))
    assert proof.holds
    assert not prove(weight, (16, 3, 1, 1), norm * (1 - 1e-9)).holds


def test_a_hint_that_is_needed_is_followed() -> None:
    """A kernel whose claim was proved with other twists than halves."""
    weight = np.random.default_rng(7).standard_normal((2, 2, 3, 3))
    geometry = (6, 3, 1, 1)
    hint = Torus((7, 7), (Fraction(1, 4), Fraction(3, 8)))
    claim = torus_norm(weight, geometry, hint) * (1 + 1e-6)
    for first in (Fraction(0), HALF):
        for second in (Fraction(0), HALF):
            assert torus_norm(weight, geometry, Torus((7, 7), (first, second))) > 1.005 * claim
    axes = axes_of(geometry)
    assert prove_convolution(weight, axes, claim, hint, lambda done, total: None).holds
    assert not prove(weight, geometry, claim).holds


def test_block_entries_are_within_the_stated_error() -> None:
    random = np.random.default_rng(8)
    scales = 2.0 ** random.integers(-30, 31, (2, 3, 3, 3))
    weight = (random.standard_normal((2, 3, 3, 3)) * scales).astype(np.float32).astype(float)
    axes = axes_of((6, 3, 1, 1))
    taps, torus = polyphase(weight, axes), Torus((7, 7), (HALF, Fraction(0)))
    points = frequencies(axes, torus)
    (blocks,) = frequency_blocks(taps, axes, points)
    error = block_error(taps)
    with mpmath.workdps(50):
        for parts, (a, b) in zip(blocks, points, strict=True):
            total = mpmath.mpf(0)
            for i in range(2):
                for o in range(3):  # more inputs than outputs: the block comes transposed
                    exact = mpmath.mpc(0)
                    for t in range(3):
                        for v in range(3):
                            turn = a * (t - 1) + b * (v - 1)
                            angle = 2 * mpmath.mpf(turn.numerator) / turn.denominator
                            exact += mpmath.mpf(weight[i, o, t, v]) * mpmath.expjpi(angle)
                    total += abs(exact - mpmath.mpc(*parts[:, o, i].tolist())) ** 2
            assert mpmath.sqrt(total) <= error
    assert error < 1e-12 * np.abs(weight).max()


def test_zero_tiny_and_dense() -> None:
    zero = np.zeros((2, 2, 3, 3))
    assert prove(zero, (4, 3, 1, 1), 0.0).holds
    random = np.random.default_rng(1)
    matrix = random.standard_normal((5, 9))
    norm = float(np.linalg.norm(matrix, 2))
    for scale in (1.0, 2.0**-100, 2.0**90):
        assert prove_dense(matrix * scale, norm * scale * (1 + 1e-9)).holds
        assert not prove_dense(matrix * scale, norm * scale * (1 - 1e-9)).holds
