"""Writing .beton files from a source, with their data card.

Notable:
- Nothing appears under the final name before it is whole: the file is written beside it, read back,
  hashed, and renamed. A killed writer leaves `NAME.beton.partial` and `NAME.beton.parts/`, from
  which the same command goes on; two writers of one file exclude each other.
- Size and time are estimated first, and a disk that is too short is refused before the first byte.
- A picture that cannot be read ends the writing with its name or, if that is wished, is left out,
  counted and listed in the data card.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import PIL

from pipeline.data.betons.card import data_card, write_card
from pipeline.data.betons.estimate import estimate, require_room
from pipeline.data.betons.files import cards_of
from pipeline.data.betons.format import card_path, read_beton
from pipeline.data.betons.shards import Parts
from pipeline.data.betons.storage import Storage, storage_of
from pipeline.data.betons.writer import BetonWriter, Layout, Sample
from pipeline.data.sources import Source, Split, open_source
from pipeline.data.sources.base import UnreadablePicture
from pipeline.data.sources.enlarged import Enlarged
from pipeline.data.workers import worker_count
from pipeline.progress import say

OnError = Literal["stop", "skip"]


class StoredSource:
    """A source as it will be stored, picture by picture."""

    def __init__(self, source: Source, storage: Storage) -> None:
        self._source, self._storage = source, storage
        self._as_jpeg = storage.compresses(range(len(source)))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        image = self._source.image(index)
        height, width, _ = image.shape
        photograph = self._source.photographs
        if photograph:
            image = self._storage.picture(image)
        as_jpeg = photograph and bool(self._as_jpeg[index])
        return Sample(image, int(self._source.labels[index]), height, width, as_jpeg)


def write_beton(
    spec: str,
    split: Split,
    storage: Storage,
    out: Path,
    workers: int = 0,
    on_error: OnError = "stop",
    force: bool = False,
    resize: bool = False,
) -> dict[str, Any]:
    """Write one split of a source.

    Args:
        spec: a source, such as `digits` or `folder:PATH`.
        split: which part.
        storage: what becomes of photographs (`storage.storage_of`).
        out: the file; its data card goes beside it.
        workers: threads that read and compress; 0 takes the cores there are.
        on_error: what to do about a picture that cannot be read: stop, or skip and list it.
        force: replace an existing file.
        resize: images of one small size are treated as photographs too.

    Returns:
        The data card.

    Raises:
        ValueError: anything that the user can mend, naming it. Finished shards are kept.
    """
    check_out(out, force)
    source = open_source(spec, split)
    if resize:
        source = Enlarged(source)
    return write_source(source, spec, split, storage, out, workers, on_error)


def check_out(out: Path, force: bool) -> None:
    """Before anything is opened or computed.

    Raises:
        ValueError: the file is there, or has another ending.
    """
    if out.suffix != ".beton":
        raise ValueError(f"--out {out} must end in .beton: the loaders know the format by that")
    if out.exists() and not force:
        raise ValueError(f"{out} exists: give --force to replace it, or another --out")


def write_source(
    source: Source,
    spec: str,
    split: Split,
    storage: Storage,
    out: Path,
    workers: int = 0,
    on_error: OnError = "stop",
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write an open source, replacing what is there. See `write_beton`.

    Args:
        spec: what the data card calls the source; cards that its files have go into the new one.
        facts: further entries of the data card.
    """
    samples = StoredSource(source, storage)
    layout = _layout(source, samples, storage)
    if source.passed_over:
        say(f"passed over, not in a class folder: {', '.join(source.passed_over)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot write to {out.parent} ({error.strerror})") from None
    workers = worker_count(workers)
    expected = estimate(samples, layout, workers)
    try:
        with _partial(out) as (partial, file):
            parts = Parts(out, _fingerprint(source, split, storage, layout), layout.record_type)
            done = parts.shards[-1].stop if parts.shards else 0
            try:
                already = partial.stat().st_size if done else 0
                require_room(out, expected, len(source), already)
                if done:
                    say(f"going on after {done:,} of {len(source):,} images")
                BetonWriter(file, layout, parts, on_error == "skip").write(samples, workers)
            except BaseException as error:
                if not parts.any_finished:
                    partial.unlink()
                    parts.clear()
                elif isinstance(error, ValueError):
                    error.add_note("what is written is kept; the same command goes on from there")
                raise
            card = data_card(spec, split, source, storage, read_beton(partial), parts.shards)
            if before := cards_of(spec):
                card["written_from"] = before
            card |= facts or {}
            out.unlink(missing_ok=True)  # a new card must never lie beside the old file
            write_card(card, card_path(out))
            partial.replace(out)
            parts.clear()
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from None
    return card


def _layout(source: Source, samples: StoredSource, storage: Storage) -> Layout:
    """Shape and page size of the file.

    Raises:
        ValueError: no picture can be read, or settings are for photographs and these are none.
    """
    if source.photographs:
        return Layout((0, 0, 3), len(source), storage.largest_bytes, storage.quality)
    for index in range(len(source)):
        try:
            height, width, channels = samples[index].image.shape
        except UnreadablePicture:
            continue  # named when it is its turn
        break
    else:
        raise ValueError("no picture of the source can be read")
    untouched = storage_of(storage.preset)
    if storage not in (untouched, replace(untouched, size=height)):
        raise ValueError(
            f"these images have {height} pixels a side and are stored untouched: leave --size, "
            "--longest, --compressed and --quality out"
        )
    return Layout((height, width, channels), len(source), height * width * channels, 0)


def _fingerprint(source: Source, split: Split, storage: Storage, layout: Layout) -> str:
    """Of all that the bytes of the file depend on, what is skipped apart."""
    facts = [source.identity, split, storage.record(), layout.page, layout.shape, PIL.__version__]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@contextmanager
def _partial(out: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """The file to write, under another name and locked, with what a killed writer left in it."""
    partial = out.with_name(out.name + ".partial")
    with partial.open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"--out {out} is being written by another process") from None
        with partial.open("r+b") as file:
            yield partial, file
