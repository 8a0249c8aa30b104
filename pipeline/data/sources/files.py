"""PictureFiles: a source of which every picture is a file of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.data.sources.base import Pixels, UnreadablePicture, fingerprint, named_size
from pipeline.data.sources.decode import decode_rgb, small_side
from pipeline.data.sources.tree import Tree, join, walk


class PictureFiles:
    """Files with labels. See `Source`.

    Args:
        files: paths in the tree, in order of sample id.
        labels: theirs.
        class_names: labels are positions in this.
        passed_over: files of the tree that lie where classes were expected.
    """

    def __init__(
        self,
        tree: Tree,
        files: Sequence[str],
        labels: Sequence[int],
        class_names: Sequence[str],
        passed_over: Sequence[str] = (),
    ) -> None:
        assert len(files) == len(labels)
        self.class_names = tuple(class_names)
        self.labels: npt.NDArray[np.int64] = np.array(labels, np.int64)
        self.passed_over = tuple(passed_over)
        self._tree, self._files = tree, files
        self._side = small_side(lambda index: tree.read(files[index]), len(files))
        self.photographs = self._side is None

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> Pixels:
        """[H, W, 3] uint8."""
        name = self.describe(index)
        try:
            data = self._tree.read(self._files[index])
        except OSError as error:
            raise UnreadablePicture(name, error.strerror or str(error)) from None
        return decode_rgb(data, name, self._side)

    @cached_property
    def identity(self) -> str:
        """See `Source`. The first time it asks every file for its size."""
        contents = (named_size(file, self._tree.size(file)) for file in self._files)
        return fingerprint(self.class_names, self.labels, contents)

    def describe(self, index: int) -> str:
        """Archive or folder, and the file in it."""
        return self._tree.describe(self._files[index])


def in_classes(
    tree: Tree, root: str, classes: Sequence[str], spec: str, inside: str = ""
) -> tuple[list[str], list[int]]:
    """The pictures of class folders and their labels, in the order of the classes.

    Args:
        root: the folder in which the class folders are.
        inside: the folder in each of them in which the pictures are; "" for it itself.

    Raises:
        ValueError: a class is empty.
    """
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files += walk(tree, join(join(root, name), inside))
        if len(files) == len(labels):
            raise ValueError(
                f"data {spec}: class {name!r} in {tree.describe(root)} is empty: add pictures or "
                "remove it"
            )
        labels += [label] * (len(files) - len(labels))
    return files, labels


def same_classes(one: Sequence[str], other: Sequence[str], what: str, spec: str) -> None:
    """Refuse two splits of different classes: a class more would shift every label after it.

    Args:
        what: which two, for the message: "train and val".

    Raises:
        ValueError: naming the first class that only one of them has.
    """
    differing = sorted(set(one) ^ set(other))
    if differing:
        raise ValueError(
            f"data {spec}: {what} have not the same classes, only one of them has "
            f"{differing[0]!r}: labels would not mean the same"
        )
