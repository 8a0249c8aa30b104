"""The probe passes conventional products and catches the fast ones."""

import numpy as np
import pytest
import torch

from pipeline.certify import probe


def test_this_machine_passes() -> None:
    probe.check_matrix_product(torch.device("cpu"))


def strassen(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One level of Strassen's algorithm."""
    (a1, a2), (a3, a4) = (np.split(half, 2, 1) for half in np.split(a, 2))
    (b1, b2), (b3, b4) = (np.split(half, 2, 1) for half in np.split(b, 2))
    m1, m2, m3 = (a1 + a4) @ (b1 + b4), (a3 + a4) @ b1, a1 @ (b2 - b4)
    m4, m5 = a4 @ (b3 - b1), (a1 + a2) @ b4
    m6, m7 = (a3 - a1) @ (b1 + b2), (a2 - a4) @ (b3 + b4)
    return np.block([[m1 + m4 - m5 + m7, m3 + m5], [m2 + m4, m1 - m2 + m3 + m6]])


def float32_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float64)


def fixed_point(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Emulated float64: each row of a and column of b on one 53-bit grid of its own."""
    grid_a = 2.0 ** (np.ceil(np.log2(np.abs(a).max(1, keepdims=True))) - 53)
    grid_b = 2.0 ** (np.ceil(np.log2(np.abs(b).max(0, keepdims=True))) - 53)
    return (np.round(a / grid_a) * grid_a) @ (np.round(b / grid_b) * grid_b)


@pytest.mark.parametrize("product", [strassen, float32_product, fixed_point])
def test_other_products_are_caught(product, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(product(self.numpy(), other.numpy()))

    monkeypatch.setattr(probe, "SIZES", ((64, 128, 64),))
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", fake)
        with pytest.raises(RuntimeError, match="products on cpu are not conventional"):
            probe.check_matrix_product(torch.device("cpu"))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("_stacked", "of stacks on cpu"),
        ("_transposed", "of transposed stacks on cpu"),
        ("_of_numpy", "of NumPy"),
    ],
)
@pytest.mark.parametrize("product", [strassen, float32_product, fixed_point])
def test_each_library_is_asked(
    product, where: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SIZES", ((64, 128, 64),))
    monkeypatch.setattr(probe, where, lambda left, right, device=None: product(left, right))
    with pytest.raises(RuntimeError, match=f"products {words} are not conventional"):
        probe.check_matrix_product(torch.device("cpu"))
