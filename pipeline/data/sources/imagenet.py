"""`imagenet:PATH`: ImageNet-1k as people have it, in any of these forms, mixed as they come:

- class folders, `train/<wnid>/` and `val/<wnid>/`;
- `val/ILSVRC2012_val_00000001.JPEG`, ... in one folder, with their classes in Kaggle's
  `LOC_val_solution.csv` or in the devkit (`ground_truth`);
- Kaggle's `ILSVRC/Data/CLS-LOC/train` and `val`;
- the official archives `ILSVRC2012_img_train.tar` (a tar of a tar a class) and
  `ILSVRC2012_img_val.tar`, read in place and never unpacked.

Notable:
- PATH is the folder that holds them (or a tar or zip of it). Of a folder and an archive of the same
  split the folder is taken.
- Labels are positions among the sorted wnids, in both splits, whatever the devkit's own numbers.
- Any number of classes will do (ImageNet-100), but they must be the same in both splits, and the
  pictures of a flat val must be exactly those of which the classes are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.data.sources.base import Split, existing
from pipeline.data.sources.devkit import devkit_names
from pipeline.data.sources.files import PictureFiles, in_classes, same_classes
from pipeline.data.sources.folder import lone_folders
from pipeline.data.sources.ground_truth import VAL_PICTURE, find_ground_truth
from pipeline.data.sources.open_tree import open_tree
from pipeline.data.sources.tar import NestedTars, Tar
from pipeline.data.sources.tree import FolderTree, Tree, has_folder, join
from pipeline.data.sources.wnids import WNID, listed_names, with_names

KAGGLE = ("ILSVRC", "Data", "CLS-LOC")
ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}


@dataclass(frozen=True)
class _Home:
    """Where everything lies."""

    spec: str
    tree: Tree
    tops: list[str]
    """Folders of the tree in which lists may lie, the innermost last."""

    def folder(self, split: str) -> str | None:
        """The folder of a split."""
        above = ("", *("/".join(KAGGLE[start:]) for start in range(len(KAGGLE))))
        places = (join(join(self.tops[-1], place), split) for place in above)
        return next((place for place in places if has_folder(self.tree, place)), None)

    def archive(self, split: str) -> Path | None:
        """The official archive of a split."""
        path = self.tree.path / self.tops[-1] / ARCHIVES[split]
        return path if isinstance(self.tree, FolderTree) and path.is_file() else None

    def classes(self, split: str) -> list[str]:
        """The wnids of a split, from no more than a look; [] if it is flat or missing."""
        if (folder := self.folder(split)) is not None:
            return [name for name in self.tree.listing(folder)[0] if WNID.fullmatch(name)]
        if split == "train" and (archive := self.archive(split)) is not None:
            return NestedTars(archive, self.spec).listing("")[0]
        return []


def open_imagenet(path: Path, split: Split) -> PictureFiles:
    """ImageNet.

    Raises:
        ValueError: PATH or the split is missing, an archive is cut, a folder is no wnid, the
            classes of the splits differ, or the ground truth of a flat val is missing or does not
            fit the pictures.
    """
    home = _home(path)
    folder, archive = home.folder(split), home.archive(split)
    if folder is not None:
        tree: Tree = home.tree
        root = folder
    elif archive is not None:
        tree = (NestedTars if split == "train" else Tar)(archive, home.spec)
        root = ""
    else:
        raise ValueError(_missing(home, split))
    folders, files = tree.listing(root)
    if split == "val" and not any(map(WNID.fullmatch, folders)):
        return _flat(home, tree, root, folders, files)
    strange = next((name for name in folders if not WNID.fullmatch(name)), None)
    if strange is not None or not folders:
        found = f"folder {strange!r}" if strange else "no folders"
        raise ValueError(
            f"data {home.spec}: {found} in {tree.describe(root)}, where class folders called by "
            "wnids such as n01440764 are expected"
        )
    other = home.classes("val" if split == "train" else "train") or folders
    same_classes(folders, other, "train and val", home.spec)
    pictures, labels = in_classes(tree, root, folders, home.spec)
    passed_over = [join(root, file) for file in files]
    return PictureFiles(tree, pictures, labels, _class_names(home, folders), passed_over)


def _flat(home: _Home, tree: Tree, root: str, folders: list[str], files: list[str]) -> PictureFiles:
    """val without class folders."""
    pictures = [name for name in sorted(folders + files) if VAL_PICTURE.fullmatch(name)]
    where = tree.describe(root)
    if not pictures:
        raise ValueError(
            f"data {home.spec}: {where} holds neither class folders such as n01440764 nor pictures "
            "such as ILSVRC2012_val_00000001.JPEG"
        )
    truth = find_ground_truth(home.tree, home.tops, home.spec)
    wnids = truth.of_pictures(pictures, where, home.spec)
    classes = home.classes("train") or sorted(truth.classes)
    same_classes(sorted(truth.classes), classes, f"{truth.where} and train", home.spec)
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    return PictureFiles(
        tree,
        [join(root, name) for name in pictures],
        [label_of[wnid] for wnid in wnids],
        _class_names(home, classes),
        [join(root, name) for name in files if not VAL_PICTURE.fullmatch(name)],
    )


def _home(path: Path) -> _Home:
    spec = f"imagenet:{path}"
    existing(path, spec)
    if path.name in ARCHIVES.values():
        raise ValueError(
            f"data {spec}: give the folder that holds the archives, imagenet:{path.parent}"
        )
    # Kaggle's lists lie beside ILSVRC, which may be what was given, or a folder in it.
    parts = path.absolute().parts
    for depth in (3, 2, 1):
        if parts[-depth:] == KAGGLE[:depth] and not path.is_file():
            path = path.absolute().parents[depth - 1]
            break
    tree = open_tree(path, spec)
    return _Home(spec, tree, lone_folders(tree, (*ARCHIVES, *KAGGLE)))


def _missing(home: _Home, split: Split) -> str:
    folders = home.tree.listing(home.tops[-1])[0]
    expected = (
        f"expected {split}/n01440764/ and so on, {'/'.join(KAGGLE)}/{split}/ or {ARCHIVES[split]}"
    )
    if any(map(WNID.fullmatch, folders)):
        expected = "it holds class folders itself: give the folder above it, or folder:PATH"
    return f"data {home.spec}: no {split} pictures in {home.tree.path}: {expected}"


def _class_names(home: _Home, wnids: list[str]) -> tuple[str, ...]:
    names = listed_names(home.tree, home.tops, home.spec)
    return with_names(wnids, names or devkit_names(home.tree, home.tops, home.spec))
