"""The classes of ImageNet's validation pictures where these lie in one folder."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.sources.devkit import NAME, find_devkit
from pipeline.data.sources.tree import Tree, has_file, join
from pipeline.data.sources.wnids import WNID

VAL_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
SOLUTION = "LOC_val_solution.csv"
"""Kaggle's: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`, boxes after the wnid."""


@dataclass(frozen=True)
class GroundTruth:
    """wnids by the number of the picture, from 1."""

    wnid_of: dict[int, str]
    classes: frozenset[str]
    """All that the set has."""
    where: str
    """For messages."""

    def of_pictures(self, names: Sequence[str], folder: str, spec: str) -> list[str]:
        """The wnids of pictures called as in `VAL_PICTURE`.

        Raises:
            ValueError: they are not exactly the pictures that are known.
        """
        numbers: dict[int, str] = {}
        for name in names:
            match = VAL_PICTURE.fullmatch(name)
            assert match is not None
            numbers[int(match[1])] = name
        unknown = sorted(numbers.keys() - self.wnid_of.keys())
        missing = sorted(self.wnid_of.keys() - numbers.keys())
        if unknown or missing:
            first = (
                f"{numbers[unknown[0]]} has no class: take {self.where} from the same release"
                if unknown
                else f"ILSVRC2012_val_{missing[0]:08}.JPEG is missing: fetch the pictures again"
            )
            raise ValueError(
                f"data {spec}: {folder} holds {len(names):,} pictures and {self.where} tells the "
                f"classes of {len(self.wnid_of):,}; {first}"
            )
        return [self.wnid_of[number] for number in numbers]


def find_ground_truth(tree: Tree, folders: Sequence[str], spec: str) -> GroundTruth:
    """Kaggle's list, or else the devkit's, from one of the folders.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    for folder in folders:
        file = join(folder, SOLUTION)
        if has_file(tree, file):
            return _solution(tree, file, spec)
    kit = find_devkit(tree, folders, spec)
    if kit is None:
        raise ValueError(
            f"data {spec}: the pictures of val lie in one folder, and nothing tells their classes: "
            f"put {SOLUTION} (Kaggle) or {NAME}.tar.gz (image-net.org) into {tree.path}"
        )
    wnids = kit.truth()
    classes = frozenset(wnid for wnid, _ in kit.synsets().values())
    return GroundTruth(dict(enumerate(wnids, 1)), classes, kit.where)


def _solution(tree: Tree, file: str, spec: str) -> GroundTruth:
    where = tree.describe(file)
    wnid_of: dict[int, str] = {}
    try:
        rows = list(csv.reader(tree.read(file).decode().splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"data {spec}: {where} cannot be read ({error}): fetch it again") from None
    for number, row in enumerate(rows[1:], 2):
        name, _, prediction = ",".join(row).partition(",")
        picture = VAL_PICTURE.fullmatch(name + ".JPEG")
        wnid = prediction.split(maxsplit=1)[0] if prediction.strip() else ""
        if picture is None or not WNID.fullmatch(wnid):
            raise ValueError(
                f"data {spec}: line {number} of {where} is {','.join(row)!r}, expected a picture "
                "and its wnid, such as ILSVRC2012_val_00048981,n03995372 85 1 499 272"
            )
        wnid_of[int(picture[1])] = wnid
    return GroundTruth(wnid_of, frozenset(wnid_of.values()), where)
