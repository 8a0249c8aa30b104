"""Proved bounds on disk, a file a layer, so that none is proved twice when a certification is left.

Notable: as with blocks, a file is whole or not there, and carries a key over everything that the
bound depends on (weights, the function, versions); one of another network is proved again.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.certify.block_store import clear_folder, write_atomically
from pipeline.lipschitz.bound import NormBound

FORMAT = "certline bound 1"


@dataclass(frozen=True)
class BoundStore:
    """The folder `bounds/` of a certificate directory."""

    folder: Path
    key: str

    def path(self, layer: int) -> Path:
        """Where the bound of layer number `layer` is or will be."""
        return self.folder / f"{layer:04d}.json"

    def write(self, layer: int, bound: NormBound) -> None:
        """Store a bound; an infinite one, which proves nothing, is not worth it."""
        if math.isfinite(bound.value):
            body = {"format": FORMAT, "key": self.key, "bound": asdict(bound)}
            write_atomically(self.path(layer), json.dumps(body, allow_nan=False))

    def read(self, layer: int) -> NormBound | None:
        """The stored bound, to the bit; None if there is none under this store's key."""
        try:
            body = json.loads(self.path(layer).read_text())
            if (body["format"], body["key"]) == (FORMAT, self.key):
                return NormBound(**body["bound"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or damaged: it is proved again
        return None

    def clear(self) -> None:
        """Remove the folder and what this class wrote into it."""
        clear_folder(self.folder, "[0-9]*.json*")
