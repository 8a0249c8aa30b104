"""Where images come from: `open_source` reads what the user wrote into a Source.

One layout a file; `FORMS` is the table of them. What several have in common: `tree` (folders and
archives alike), `files` (a picture a file), `arrays` (all pictures in memory), `decode`, `wnids`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.data.sources.base import Source, Split, UnreadablePicture
from pipeline.data.sources.beton import BetonSource
from pipeline.data.sources.cifar import open_cifar
from pipeline.data.sources.digits import Digits
from pipeline.data.sources.folder import open_folder
from pipeline.data.sources.imagenet import ARCHIVES, open_imagenet
from pipeline.data.sources.mnist import open_mnist
from pipeline.data.sources.npz import NpzArchive
from pipeline.data.sources.tiny_imagenet import open_tiny_imagenet

__all__ = ["FORMS", "Source", "Split", "UnreadablePicture", "forms_help", "open_source"]


@dataclass(frozen=True)
class Form:
    """What is written before the colon, and what it opens."""

    open: Callable[[Path, Split], Source]
    what: str
    """For the help texts."""


FORMS = {
    "imagenet": Form(
        open_imagenet, "ImageNet: class folders, Kaggle's or the official archives, none unpacked"
    ),
    "tiny_imagenet": Form(open_tiny_imagenet, "tiny-imagenet-200, its folder, zip or tar"),
    "cifar10": Form(partial(open_cifar, "cifar10"), "python or binary version, unpacked or not"),
    "cifar100": Form(partial(open_cifar, "cifar100"), "the same, fine labels"),
    "mnist": Form(partial(open_mnist, "mnist"), "idx files, gzipped or not"),
    "fashion_mnist": Form(partial(open_mnist, "fashion_mnist"), "the same"),
    "folder": Form(open_folder, "class folders, in train/ and val/ or not: a folder, tar or zip"),
    "beton": Form(BetonSource, "a .beton file of pixels or a folder of them, to be written again"),
    "npz": Form(NpzArchive, "x_train/y_train/..., train_bytes/train_offsets/..., or image/label"),
}
"""All but `digits`, which needs no path."""
MARKS = {"cifar-100": "cifar100", "cifar-10": "cifar10", "tiny-imagenet": "tiny_imagenet"}
"""How the files of some begin, the more special first."""
DIGITS = "scikit-learn's handwriting, 8x8, 1437 + 360 images, no download"


def open_source(spec: str, split: Split) -> Source:
    """Open a data set by its spec: `digits` or `FORM:PATH` with a form of `FORMS`.

    Raises:
        ValueError: an unknown form, or what the source itself refuses.
    """
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return Digits(split)
    if kind == "folder" and Path(rest).name in ARCHIVES.values():
        raise ValueError(
            f"data {spec!r}: this archive is read by imagenet, from the folder it lies in: write "
            f"imagenet:{Path(rest).parent}"
        )
    if kind in FORMS and rest:
        return FORMS[kind].open(Path(rest), split)
    raise ValueError(f"data {spec!r} is not a source: {_mend(spec)}")


def forms_help() -> str:
    """A line for each form, for the help of the tools."""
    lines = {"digits": DIGITS, **{f"{kind}:PATH": form.what for kind, form in FORMS.items()}}
    width = max(map(len, lines)) + 2
    return "\n".join(f"  {form:{width}}{what}" for form, what in lines.items())


def _mend(spec: str) -> str:
    kind, colon, rest = spec.partition(":")
    if not colon and Path(spec).exists():
        return f"did you mean {_form_of(Path(spec))}:{spec}?"
    near = difflib.get_close_matches(kind.lower(), ["digits", *FORMS], n=1, cutoff=0.6)
    if kind in FORMS and not rest:
        return f"write where it lies, {kind}:PATH"
    if near:
        return (
            f"did you mean {near[0]}:{rest or 'PATH'}?"
            if near[0] in FORMS
            else "did you mean digits?"
        )
    return f"expected digits, {', '.join(f'{form}:PATH' for form in FORMS)} or a .beton file"


def _form_of(path: Path) -> str:
    """The form in which something that lies there is most likely written."""
    if path.suffix == ".npz":
        return "npz"
    names = {path.name, *(other.name for other in path.glob("*"))}
    marks = {**dict.fromkeys((*ARCHIVES.values(), "ILSVRC"), "imagenet"), **MARKS}
    for mark, kind in marks.items():
        if any(name.startswith(mark) for name in names):
            return kind
    return "folder"
