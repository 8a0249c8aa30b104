"""Weights as float64 arrays, exactly: what is proved must be about the numbers that were given.

Notable: float16, bfloat16 and float32 are subsets of float64, so nothing is lost. A type that is
not (long double, large integers) is accepted only if every entry happens to survive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.lipschitz.rounding import Float64


def exact_float64(weight: Any, axes: tuple[str, ...]) -> Float64:
    """`weight` as a contiguous float64 array with the same values; NaN and inf pass.

    Args:
        weight: a torch tensor (any device), a NumPy array, or nested lists.
        axes: what its dimensions mean, for the message, e.g. ("O", "I").

    Raises:
        ValueError: a wrong number of dimensions, an empty one, a dtype that is not real, or an
            entry that float64 cannot hold.
    """
    if isinstance(weight, torch.Tensor):
        tensor = weight.detach().cpu()
        # bfloat16 is unknown to NumPy; no torch type is wider than float64
        weight = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    given: NDArray[Any] = np.asarray(weight)
    if given.dtype.kind not in "fiu":
        raise ValueError(f"weight has dtype {given.dtype}: a real floating dtype is needed")
    if given.ndim != len(axes) or not given.size:
        raise ValueError(
            f"weight has shape {list(given.shape)}: [{', '.join(axes)}] is needed, none of them 0"
        )
    exact = np.ascontiguousarray(given, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        same = np.array_equal(exact.astype(given.dtype), given, equal_nan=True)
    if not same:
        raise ValueError(f"weight has entries of dtype {given.dtype} that float64 cannot hold")
    return exact
