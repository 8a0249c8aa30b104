"""Where images come from: `open_source` reads what the user wrote into a Source."""

from __future__ import annotations

import difflib
from pathlib import Path

from pipeline.data.sources.base import Source, Split
from pipeline.data.sources.digits import Digits
from pipeline.data.sources.folder import ClassFolders
from pipeline.data.sources.npz import NpzArchive

__all__ = ["Source", "Split", "open_source"]

FORMS = ("digits", "folder:PATH", "npz:PATH")


def open_source(spec: str, split: Split) -> Source:
    """Open a data set by its spec: `digits`, `folder:PATH` or `npz:PATH`.

    Raises:
        ValueError: an unknown form, or what the source itself refuses.
    """
    kind, colon, rest = spec.partition(":")
    if spec == "digits":
        return Digits(split)
    if kind == "folder" and rest:
        return ClassFolders(Path(rest), split)
    if kind == "npz" and rest:
        return NpzArchive(Path(rest), split)
    near = difflib.get_close_matches(kind, [form.split(":")[0] for form in FORMS], n=1, cutoff=0.6)
    hint = next((form for form in FORMS if near and form.startswith(near[0])), None)
    mend = f"did you mean {hint}?" if hint else f"expected {', '.join(FORMS)} or a .beton file"
    if not colon and Path(spec).exists():
        mend = f"did you mean {'npz' if spec.endswith('.npz') else 'folder'}:{spec}?"
    raise ValueError(f"data {spec!r} is not a source: {mend}")
