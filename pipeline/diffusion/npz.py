"""Samples as .npz: `image` [N, H, W, C] uint8, `label` [N] int64, `class_names` [K] text.

Notable:
- Written in one pass, uncompressed, through a file beside: memory does not grow with the count.
- Reading checks what others' files leave open: labels in range, and the order of the classes.
  Generators of the literature number classes by the file names they were trained on, and CIFAR-10's
  come alphabetically there (bird 0, car 1, ...), not in CIFAR's order. Names are compared where
  the file has them; where it has none, a classifier must recognise more than chance.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.betons.card import file_sha256, write_card
from pipeline.data.betons.format import card_path
from pipeline.data.sources import Source
from pipeline.data.sources.npz import NpzArchive
from pipeline.diffusion.classifier import Judge
from pipeline.progress import ProgressBar, say

JUDGED = 1000
"""Images that a classifier looks at, at most."""
PIECE = 256


def write_npz(source: Source, spec: str, out: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write a source and its data card; the card.

    Raises:
        ValueError: it cannot be written.
    """
    partial = out.with_name(out.name + ".partial")
    height, width, channels = source.image(0).shape
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            header = {
                "descr": "|u1",
                "fortran_order": False,
                "shape": (len(source), height, width, channels),
            }
            with archive.open("image.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                with ProgressBar("write", len(source), unit="img") as bar:
                    for index in range(len(source)):
                        file.write(np.ascontiguousarray(source.image(index)).data)
                        bar.advance()
            for name, array in (
                ("label.npy", source.labels.astype("<i8")),
                ("class_names.npy", np.array(source.class_names)),
            ):
                with archive.open(name, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        counts = np.bincount(source.labels, minlength=len(source.class_names))
        card = {
            "format": "certline npz card 1",
            "source": spec,
            "num_samples": len(source),
            "image_shape": [channels, height, width],
            "class_names": list(source.class_names),
            "images_per_class": counts.tolist(),
            "file_bytes": partial.stat().st_size,
            "file_sha256": file_sha256(partial),
            "source_sha256": source.identity,
            **facts,
        }
        out.unlink(missing_ok=True)  # a new card must never lie beside the old file
        write_card(card, card_path(out))
        partial.replace(out)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return card


class ForeignSamples:
    """Images and labels of an .npz file, as classes of ours. See `pipeline.data.sources.Source`.

    Args:
        path: with the arrays `image` and `label`.
        class_names: of the data set that it is of, in order.
        image_shape: [C, H, W] of its images.
        judge: a classifier of that data; needed where the file names no classes.

    Raises:
        ValueError: it is no such file, of other images, or its labels mean something else.
    """

    photographs = False
    passed_over: tuple[str, ...] = ()

    def __init__(
        self,
        path: Path,
        class_names: Sequence[str],
        image_shape: tuple[int, int, int],
        judge: Judge | None,
    ) -> None:
        self._archive = NpzArchive(path, "train")
        self.class_names = tuple(class_names)
        self.labels = self._archive.labels
        self._path = path
        height, width, channels = self._archive.image(0).shape
        if (channels, height, width) != tuple(image_shape):
            raise ValueError(
                f"{path} has images of {channels}x{height}x{width} (channels x height x width), "
                f"and the data set has {'x'.join(map(str, image_shape))}"
            )
        self._check_names()
        if judge is not None:
            self._check_order(judge)

    def __len__(self) -> int:
        return len(self._archive)

    def image(self, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """[H, W, C] uint8."""
        return self._archive.image(index)

    @property
    def identity(self) -> str:
        """See `Source`."""
        return self._archive.identity

    def describe(self, index: int) -> str:
        """File and number."""
        return self._archive.describe(index)

    def _check_names(self) -> None:
        names, numbers = self._archive.class_names, tuple(map(str, range(len(self.class_names))))
        largest = int(self.labels.max())
        if largest >= len(self.class_names):
            raise ValueError(
                f"{self._path} has the label {largest}, and there are {len(self.class_names)} "
                f"classes, 0 to {len(self.class_names) - 1}"
            )
        unnamed = names == numbers[: len(names)]
        if not unnamed and names != self.class_names:
            first = next(
                (pair for pair in zip(names, self.class_names, strict=False) if len(set(pair)) > 1),
                (f"{len(names)} classes", f"{len(self.class_names)}"),
            )
            raise ValueError(
                f"{self._path} names its classes in another order or otherwise ({first[0]!r} there "
                f"where the data set has {first[1]!r}): renumber its labels first"
            )

    def _check_order(self, judge: Judge) -> None:
        """A classifier must recognise the labels at more than twice the rate of chance."""
        chosen = np.linspace(0, len(self) - 1, min(JUDGED, len(self))).round().astype(np.int64)
        right = 0
        for start in range(0, len(chosen), PIECE):
            piece = chosen[start : start + PIECE]
            images = torch.from_numpy(np.stack([self.image(int(i)) for i in piece]))
            found = judge.logits(images.permute(0, 3, 1, 2)).argmax(1).cpu().numpy()
            right += int((found == self.labels[piece]).sum())
        share = right / len(chosen)
        say(f"{self._path}: the classifier names {share:.1%} of {len(chosen)} images as labelled")
        if share <= 2 / len(self.class_names):
            raise ValueError(
                f"{self._path}: a classifier of the data set names only {share:.1%} of its images "
                "as they are labelled, about chance: its classes are in another order"
            )
