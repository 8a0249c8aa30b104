"""A probe of the float64 matrix products that certification uses, run with every certification.

Notable: the rounding model of docs/certificate.md needs products that are sums of n products in
some order. Integer matrices small enough for every partial sum to be exact must come out exactly,
also when rows, columns and the summed index carry powers of two from 2^-40 to 2^40: a conventional
product never mixes those scales. Strassen-like recursion mixes rows, emulated float64 (Ozaki
splitting) drops the small terms of a row, TF32 has 10 bits; each fails. In use are torch's products
of matrices and of stacks, on the device, for images and for norm bounds there; NumPy's, for norm
bounds on the CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIZES = ((64, 64, 64), (96, 600, 257), (512, 512, 512))
"""(rows, summed, columns): small, LiResNet-like and odd, square and large enough for Strassen."""


def check_matrix_product(device: torch.device) -> None:
    """Multiply matrices with a known exact product, in every way that certification does.

    Raises:
        RuntimeError: the product is not the conventional one.
    """
    generator = np.random.default_rng(20240917)
    for rows, summed, columns in SIZES:
        left = generator.integers(-(2**15), 2**15, (rows, summed))
        right = generator.integers(-(2**15), 2**15, (summed, columns))
        truth = _integer_product(left, right)  # below 2^40: exact in float64 in any order
        by_row, by_column, inner = (
            np.ldexp(1.0, generator.integers(-40, 41, count)) for count in (rows, columns, summed)
        )
        first = np.asarray(left * by_row[:, None] * inner, np.float64)
        second = np.asarray(right * by_column / inner[:, None], np.float64)
        for name, product in (
            (f"on {device}", _plain(first, second, device)),
            (f"of stacks on {device}", _stacked(first, second, device)),
            (f"of transposed stacks on {device}", _transposed(first, second, device)),
            ("of NumPy", _of_numpy(first, second)),
        ):
            if not np.array_equal(product, truth * by_row[:, None] * by_column):
                raise RuntimeError(
                    f"float64 matrix products {name} are not conventional ones (a {rows}×{summed} "
                    f"by {summed}×{columns} product of integers came out wrong), so rounding "
                    "bounds do not hold there: certify on another device, or switch off the "
                    "library's emulated or fast products"
                )


def _plain(left: Floats, right: Floats, device: torch.device) -> Floats:
    product = torch.from_numpy(left).to(device) @ torch.from_numpy(right).to(device)
    return np.asarray(product.cpu().numpy())


def _stacked(left: Floats, right: Floats, device: torch.device) -> Floats:
    """As convolutions do it: one matrix with each of a stack."""
    stack = torch.from_numpy(np.stack([0 * right, right])).to(device)
    product = torch.matmul(torch.from_numpy(left).to(device), stack)
    return np.asarray(product[1].cpu().numpy())


def _transposed(left: Floats, right: Floats, device: torch.device) -> Floats:
    """As norm bounds do it on a device: AᵀB of two stacks."""
    first, second = (
        torch.from_numpy(np.stack([0 * part, part])).to(device) for part in (left.T.copy(), right)
    )
    return np.asarray(torch.matmul(first.mT, second)[1].cpu().numpy())


def _of_numpy(left: Floats, right: Floats) -> Floats:
    return np.asarray(np.matmul(left, right))


def _integer_product(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The product in 64-bit integers, which no BLAS computes."""
    return np.einsum("ik,kj->ij", left, right, dtype=np.int64)
