"""Independent pieces of work on all cores, each with single-threaded BLAS.

Notable: a BLAS that splits one product over its threads may sum in another order with another
number of threads. Here the pieces are fixed by the problem and every piece is computed by one
thread, so that a bound is the same to the last bit whatever OMP_NUM_THREADS says.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

from pipeline.lipschitz.device import proving_device

Item = TypeVar("Item")
Result = TypeVar("Result")

_ONE_AT_A_TIME = threading.Lock()
"""The BLAS limit is a setting of the process: two that set and restore it must not overlap."""


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`[function(item) for item in items]` on as many threads as torch may use. Not reentrant."""
    if proving_device() is not None:
        return [function(item) for item in items]  # it has its own parallelism, and one memory
    work = list(items)
    workers = min(torch.get_num_threads(), len(work))
    with _ONE_AT_A_TIME, _blas_libraries().limit(limits=1, user_api="blas"):
        if workers <= 1:
            return [function(item) for item in work]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(function, work))


@functools.cache
def _blas_libraries() -> ThreadpoolController:
    """The BLAS libraries loaded now; finding them takes milliseconds."""
    return ThreadpoolController()
