"""Reading CIFAR's pickles without running what is in them.

Notable: a pickle is a program that may call any function it can name. Here it can name three, which
rebuild NumPy arrays; dicts, lists, strings and numbers need none.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

_rebuild = np.empty(0).__reduce__()[0]
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _rebuild,
    ("numpy._core.multiarray", "_reconstruct"): _rebuild,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")


def unpickle_arrays(data: bytes) -> dict[str, Any]:
    """A pickled dict of arrays, lists, strings and numbers; those of Python 2 become bytes.

    Returns:
        The dict, its keys as text.

    Raises:
        ValueError: it is damaged, is something else, or names any other function.
    """
    try:
        found = _Arrays(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not a dict")
    return {
        key.decode(errors="replace") if isinstance(key, bytes) else str(key): value
        for key, value in found.items()
    }
