"""Opening the generated images of a run: `data.generated`, and everything that can be wrong there.

Notable:
- Labels mean nothing without names: a set whose classes, or their order, are not those of the real
  images is refused. Where one of the two has no names (an .npz, a .beton without data card) only
  the number of classes can be compared, and a line says so.
- A generated set that is the training or the validation set itself is refused (`leaks.py`):
  training on one's validation images would be the worst mistake of all, and silent.
- The sha256 of a set is its content hash where pixels are exact, else the file's. The data card is
  believed if it is of a file of this length; without one all pixels are read, by rank 0 alone.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import distributed
from pipeline.config import DataConfig, GeneratedConfig
from pipeline.data.classes import ClassSubset, select_classes
from pipeline.data.joined import JoinedPictures, listed_files
from pipeline.data.leaks import KEY, refuse_real_data
from pipeline.data.marks import beton_sha256
from pipeline.data.pictures import BetonPictures, Pictures, SourcePictures, open_pictures
from pipeline.data.sources import Source
from pipeline.data.staging import staged
from pipeline.progress import say

GeneratedPictures = SourcePictures | BetonPictures | JoinedPictures
LARGE_NPZ = 4e9
"""Bytes of pixels that every process should not hold."""


@dataclass(frozen=True)
class GeneratedSet:
    """The whole set, as far as it can be checked alone."""

    spec: str
    """As written by the user; of a list, its files."""
    paths: tuple[str, ...]
    """Where its files, or the source, are read."""
    pictures: GeneratedPictures
    sha256: str
    """See the notes above; of several files, of their hashes in order."""


def open_generated(data: DataConfig, image_size: int, stage: bool = True) -> GeneratedSet:
    """Open the set and check what can be checked without the real images. A collective.

    Args:
        data: its `generated` is there.
        image_size: side of the model's images.
        stage: copy .beton files to `data.stage` first.

    Raises:
        ValueError: it is not there, empty, of another size, or the training or validation set; its
            sha256 is not the one that the config asks for.
    """
    wanted = _wanted(data)
    with distributed.together():  # what is missing on one node
        files = listed_files(wanted.path)
        if len(files) == 1:
            _say_if_large(files[0])
    spec = wanted.path if isinstance(wanted.path, str) else ", ".join(wanted.path)
    paths = tuple(staged(file, data.stage) if stage else file for file in files)
    with distributed.together():
        pictures = _opened(data, files, paths, image_size)
    source = pictures.source if isinstance(pictures, SourcePictures) else None

    def checked() -> str:
        refuse_real_data(files, paths, data, source)
        return _sha256(source, paths)

    sha256: str = distributed.broadcast_object(distributed.together_while(checked))
    if wanted.sha256 is not None and sha256 != wanted.sha256:
        raise ValueError(
            f"{KEY} {spec} has the sha256 {sha256}, and data.generated.sha256 is "
            f"{wanted.sha256}: it is another set; restore that one, or leave the key out"
        )
    return GeneratedSet(spec, paths, pictures, sha256)


def classes_of_generated(
    data: DataConfig, generated: GeneratedSet, whole: Pictures, chosen: Pictures
) -> ClassSubset | None:
    """Compare classes and channels with those of the real images.

    Args:
        whole: the real images, all classes.
        chosen: those of `data.classes`; `whole` itself without that key.

    Returns:
        Which generated images are taken; None for all of them. With `data.classes` a generated set
        may have either those classes or all.

    Raises:
        ValueError: they are not the same.
    """
    pictures, names = generated.pictures, generated.pictures.class_names
    if pictures.channels != chosen.channels:
        raise ValueError(
            f"{KEY} {generated.spec} has images with {pictures.channels} channels, and data.train "
            f"{data.train} with {chosen.channels}: generate images like those"
        )
    for real in (chosen, whole):
        if not _same_classes(names, real.class_names):
            continue
        if names != real.class_names:
            say(
                f"{KEY} {generated.spec}: classes without names; its labels 0 to {len(names) - 1} "
                "are taken to be those of data.train"
            )
        if real is chosen or data.classes is None:
            return None
        return select_classes(data.classes, real.class_names, pictures.labels)
    raise ValueError(
        f"{KEY} {generated.spec} {_difference(names, chosen.class_names, str(data.train))}: "
        "generated images need the same classes in the same order"
    )


def _wanted(data: DataConfig) -> GeneratedConfig:
    assert data.generated is not None
    return data.generated


def _opened(
    data: DataConfig, files: Sequence[str], paths: Sequence[str], image_size: int
) -> GeneratedPictures:
    any_size = data.generated_augmentation.resized_crop is not None
    try:
        parts = [open_pictures(path, "train", image_size, "train", any_size) for path in paths]
        if len(parts) == 1:
            return parts[0]
        betons = [part for part in parts if isinstance(part, BetonPictures)]
        return JoinedPictures(betons, files)
    except ValueError as error:
        raise ValueError(f"{KEY}: {error}") from None


def _sha256(source: Source | None, paths: Sequence[str]) -> str:
    """Of a source, or of files."""
    if source is not None:
        return source.identity
    each = [beton_sha256(Path(path)) for path in paths]
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()


def _say_if_large(spec: str) -> None:
    """An .npz is read into memory, and by every process."""
    form, _, path = spec.partition(":")
    if form != "npz" or not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > LARGE_NPZ:
        say(
            f"{KEY} {spec} takes {size / 1e9:.1f} GB of memory of every process: write it as a "
            f".beton file, which takes none, with tools/write_beton.py --source {spec} "
            "--split train --preset exact --out FILE.beton"
        )


def _unnamed(names: Sequence[str]) -> bool:
    return tuple(names) == tuple(map(str, range(len(names))))


def _same_classes(generated: Sequence[str], real: Sequence[str]) -> bool:
    if len(generated) != len(real):
        return False
    return tuple(generated) == tuple(real) or _unnamed(generated) or _unnamed(real)


def _difference(generated: Sequence[str], real: Sequence[str], spec: str) -> str:
    """The first thing in which they differ."""
    if len(generated) != len(real):
        what = "labels up to" if _unnamed(generated) else "classes, labels up to"
        number = "" if _unnamed(generated) else f"{len(generated)} "
        return (
            f"has {number}{what} {len(generated) - 1}, and data.train {spec} {len(real)} classes, "
            f"0 to {len(real) - 1}"
        )
    label = next(
        i for i, pair in enumerate(zip(generated, real, strict=True)) if len(set(pair)) > 1
    )
    return (
        f"calls class {label} {generated[label]!r}, and data.train {spec} calls it {real[label]!r}"
    )
