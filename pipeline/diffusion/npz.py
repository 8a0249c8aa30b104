"""Samples as .npz: `image` [N, H, W, C] uint8, `label` [N] int64, `class_names` [K] text.

Notable:
- Written in one pass, uncompressed, through a file beside: memory does not grow with the count.
- Reading checks what others' files leave open: labels in range, and the order of the classes.
  Generators of the literature number classes by the file names they were trained on, and CIFAR-10's
  come alphabetically there (bird 0, car 1, ...), not in CIFAR's order. Names are compared where
  the file has them. Where it has none, a classifier must not see another order: three labels are
  the same in both orders of CIFAR-10, so that its accuracy alone stays well above chance.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.data.betons.card import file_sha256, write_card
from pipeline.data.betons.format import card_path
from pipeline.data.sources import Source
from pipeline.data.sources.npz import NpzArchive
from pipeline.diffusion.classifier import Judge
from pipeline.progress import ProgressBar, say

JUDGED = 1000
"""Images that a classifier looks at, and of each class at least:"""
JUDGED_OF_A_CLASS = 20
CERTAIN = 3.0
"""Standard deviations of votes for another order, above which it is no accident."""
MOST_NAMED = 3
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
        judge: a classifier of that data; without one, and where the file names no classes, their
            order is not checked, and a line says so.

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
        named = self._check_names()
        if judge is not None:
            self._check_order(judge)
        elif not named:
            say(
                f"{path} names no classes: that its labels are in the order of the data set was "
                "not checked; --filter CLASSIFIER has a classifier look at them"
            )

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

    def _check_names(self) -> bool:
        """Whether the file names its classes."""
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
        return not unnamed

    def _check_order(self, judge: Judge) -> None:
        """A classifier must see the labels in this order, and clearly better than by chance.

        Raises:
            ValueError: another order fits better than by accident, or none fits.
        """
        votes = self._votes(judge)
        share = np.trace(votes.sum(0)) / votes.sum()
        say(f"{self._path}: the classifier names {share:.1%} of {votes.sum()} images as labelled")
        moved = another_order(votes)
        if moved:
            names = self.class_names
            seems = ", ".join(
                f"{label} ({names[label]!r} here) seems to be {names[other]!r}"
                for label, other in list(moved.items())[:MOST_NAMED]
            )
            more = f" and {len(moved) - MOST_NAMED} more" if len(moved) > MOST_NAMED else ""
            raise ValueError(
                f"{self._path} has its classes in another order, as a classifier of the data set "
                f"sees them: label {seems}{more}: renumber its labels first"
            )
        classes = len(self.class_names)
        if share <= min(2 / classes, (1 + 1 / classes) / 2):
            raise ValueError(
                f"{self._path}: a classifier of the data set names only {share:.1%} of its images "
                "as they are labelled, about chance: give another classifier, or look at them"
            )

    def _votes(self, judge: Judge) -> npt.NDArray[np.int64]:
        """How many images of each label are taken for each class, [half, label, class]."""
        classes = len(self.class_names)
        most = max(JUDGED // classes, JUDGED_OF_A_CLASS)
        each = [_some(self.labels == label, most) for label in range(classes)]
        chosen = np.concatenate(each)
        half = np.concatenate([np.arange(len(part)) % 2 for part in each])
        votes = np.zeros((2, classes, classes), np.int64)
        for start in range(0, len(chosen), PIECE):
            piece = slice(start, start + PIECE)
            images = torch.from_numpy(np.stack([self.image(int(i)) for i in chosen[piece]]))
            found = judge.logits(images.permute(0, 3, 1, 2)).argmax(1).cpu().numpy()
            np.add.at(votes, (half[piece], self.labels[chosen[piece]], found), 1)
        return votes


def another_order(votes: npt.NDArray[np.int64]) -> dict[int, int]:
    """The labels that another order of the classes fits better than by accident.

    Of each half of the images the order is found that agrees with most votes; what accident made
    better in one is not in the other. Labels that both move to the same class are looked at
    together where they change places with each other: their votes for the new classes against
    those for their own, whose difference has the standard deviation √(their sum) where both are
    as likely.

    Args:
        votes: [half, label, class] images.

    Returns:
        The class that each of them seems to be.
    """
    one, other = (linear_sum_assignment(half, maximize=True)[1] for half in votes)
    whole, labels = votes.sum(0), np.arange(votes.shape[1])
    moves = np.flatnonzero((one == other) & (one != labels) & whole.any(1))
    edges = coo_array((np.ones(len(moves)), (moves, one[moves])), shape=whole.shape)
    group = connected_components(edges, directed=False)[1]
    for_new = np.bincount(group[moves], whole[moves, one[moves]], len(labels))
    for_own = np.bincount(group[moves], whole[moves, moves], len(labels))
    sure = for_new - for_own > CERTAIN * np.sqrt(for_new + for_own)
    return {int(label): int(one[label]) for label in moves if sure[group[label]]}


def _some(members: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.int64]:
    """Indices of so many members at most, spread over all."""
    found = np.flatnonzero(members)
    return found[np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(np.int64)]
