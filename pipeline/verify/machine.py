"""A probe of this machine's matrix product, the one thing of NumPy that every bound relies on.

Notable: the rounding bounds hold for sums of products in any order, not for Strassen-like recursion
or emulated float64. Such products mix large and small rows or drop low bits; a product of integers
whose rows and columns carry powers of two from 2^-40 to 2^40, known exactly, shows it.
"""

from __future__ import annotations

import numpy as np

from pipeline.verify.refusal import require


def probe_matrix_product(size: int = 256) -> str:
    """Compare with integer arithmetic.

    Raises:
        Refusal: NumPy's float64 product is not a conventional one here.
    """
    random = np.random.default_rng(7)
    left, right = random.integers(-(2**10), 2**10, (2, size, size))
    rows, columns = 2.0 ** random.integers(-40, 41, (2, size))
    exact = (left @ right).astype(np.float64)  # int64 products never go through BLAS
    scaled = (left * rows[:, None]) @ (right * columns)
    require(
        bool((scaled == exact * rows[:, None] * columns).all()),
        "NumPy's matrix product is not a conventional float64 product on this machine",
    )
    return f"NumPy {np.__version__}: float64 products are conventional"
