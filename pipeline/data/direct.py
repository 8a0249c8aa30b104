"""Reading pieces of a file past the page cache (O_DIRECT): `data.reading: direct`.

Notable: a mapped file is read in the kernel's small steps and pushes other things out of memory
when it does not fit. Direct reads bring each picture in one request, at the speed of the disk,
again in every epoch: right for a file larger than memory on a fast local disk, wrong for any other.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt

ALIGNMENT = 4096
"""Of places, lengths and memory; a multiple of every usual disk's sector."""


class DirectFile:
    """A file open for direct reads, from any thread.

    Raises:
        ValueError: the file system does not read directly (tmpfs), or not on this system.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        except (OSError, AttributeError) as error:
            raise ValueError(
                f"data.reading is direct, but {path} cannot be read past the page cache "
                f"({error}): take --data.reading cached"
            ) from None
        self._own = threading.local()
        self.close = weakref.finalize(self, os.close, self._descriptor)

    def read(self, start: int, length: int) -> npt.NDArray[np.uint8]:
        """`length` bytes from `start`: a view that this thread's next read overwrites."""
        first = start - start % ALIGNMENT
        wanted = start + length - first
        whole = wanted + -wanted % ALIGNMENT
        buffer = self._buffer(whole)
        got = 0
        while got < wanted:
            with memoryview(buffer)[got:whole] as rest:
                more = os.preadv(self._descriptor, [rest], first + got)
            if more == 0:
                raise OSError(f"{self._path} ends before byte {start + length}")
            got += more
            if got < wanted and got % ALIGNMENT:
                raise OSError(f"{self._path} was cut short while it was read")
        return np.frombuffer(buffer, np.uint8, length, start - first)

    def _buffer(self, size: int) -> mmap.mmap:
        """This thread's memory, page-aligned, of at least `size` bytes."""
        held: mmap.mmap | None = getattr(self._own, "buffer", None)
        if held is None or len(held) < size:
            held = self._own.buffer = mmap.mmap(-1, 1 << (size - 1).bit_length())
        return held
