"""The files of a certificate: read once, hashed, and only from inside the directory.

Notable: what is parsed later are the very bytes that were hashed. A name with a path in it, a link,
a device or a file beyond its size limit is refused before anything of it is read.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Callable
from pathlib import Path

from pipeline.verify.refusal import Refusal, quote, require

CERTIFICATE = "certificate.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
TABLE = "images.tsv"
SIZE_LIMITS = {CERTIFICATE: 2**26, WEIGHTS: 2**34, CONFIG: 2**24, TABLE: 2**31}
OTHER_LIMIT = 2**30
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
CHUNK = 2**24


def read_file(directory: Path, name: str, watch: Callable[[int, int], None]) -> bytes:
    """The content of a plain file directly in `directory`.

    Raises:
        Refusal: no such file, not a plain file, too large, not readable.
    """
    require(PLAIN_NAME.fullmatch(name) is not None, f"file name {quote(name)} is not a plain name")
    path = directory / name
    try:
        status = path.lstat()
        require(stat.S_ISREG(status.st_mode), f"{name} is not a plain file")
        limit = SIZE_LIMITS.get(name, OTHER_LIMIT)
        require(status.st_size <= limit, f"{name} is larger than {limit} bytes")
        content = bytearray()
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                content += part
                require(len(content) <= limit, f"{name} is larger than {limit} bytes")
                watch(len(content), status.st_size)
    except FileNotFoundError:
        raise Refusal(f"{name} is missing") from None
    except OSError as error:
        raise Refusal(f"{name} cannot be read: {quote(error.strerror)}") from None
    return bytes(content)


def check_hash(name: str, content: bytes, expected: str) -> None:
    """Refuse content whose sha256 is not `expected`."""
    found = hashlib.sha256(content).hexdigest()
    require(found == expected, f"{name} has the sha256 {found}, certificate.json says {expected}")
