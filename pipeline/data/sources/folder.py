"""`folder:PATH`: a folder, or a tar or zip read in place, of class folders with one file a picture.

Notable:
- If PATH holds a folder named like the split (`train`, `val`) with folders in it, the classes are
  in there; otherwise they are PATH's own folders. One lone folder at the top, as archives have it,
  is stepped into. Labels are the classes in sorted order, as everywhere for ImageNet.
- A split that is missing beside the other one is an error, and so are classes that differ between
  the two: a class folder more or less would shift every label after it.
- Other files where classes are expected are passed over and named; inside a class every file is a
  picture, however deep it lies, except hidden ones.
- Pictures that are all square, of one size and at most 64 px are data of that size and stay
  untouched; all others are photographs.
- Classes that are ImageNet's wnids get readable names if a list of them lies at the top (`wnids`).
"""

from __future__ import annotations

from pathlib import Path

from pipeline.data.sources.base import Split, existing
from pipeline.data.sources.files import PictureFiles, in_classes, same_classes
from pipeline.data.sources.open_tree import open_tree
from pipeline.data.sources.tree import ROOT, Tree, join
from pipeline.data.sources.wnids import WNID, listed_names, with_names

SPLITS = ("train", "val", "test")


def open_folder(path: Path, split: Split) -> PictureFiles:
    """Pictures in class folders.

    Raises:
        ValueError: PATH is missing or holds no class, a class is empty, the split is missing, or
            its classes are not those of the other split.
    """
    spec = f"folder:{path}"
    tree = open_tree(existing(path, spec), spec)
    tops = lone_folders(tree, SPLITS)
    root = _class_level(tree, tops[-1], split, spec)
    classes, passed_over = tree.listing(root)
    if not classes:
        raise ValueError(
            f"data {spec}: no class folders in {tree.describe(root)}: expected "
            f"{split}/CLASS/picture or CLASS/picture"
        )
    files, labels = in_classes(tree, root, classes, spec)
    are_wnids = all(map(WNID.fullmatch, classes))
    names = with_names(classes, listed_names(tree, tops, spec) if are_wnids else {})
    return PictureFiles(tree, files, labels, names, [join(root, file) for file in passed_over])


def lone_folders(tree: Tree, last: tuple[str, ...]) -> list[str]:
    """The root and, as long as there is only one folder with folders in it, the one in it.

    Args:
        last: folders of these names mean something, and are not stepped into.
    """
    tops = [ROOT]
    while True:
        folders, _ = tree.listing(tops[-1])
        if len(folders) != 1 or not tree.listing(lone := join(tops[-1], *folders))[0]:
            return tops
        if folders[0] in last:
            return tops
        tops.append(lone)


def _class_level(tree: Tree, top: str, split: Split, spec: str) -> str:
    """The folder whose folders are the classes."""
    # A class may well be called "train" (CIFAR-100 has one); a split has folders in it.
    found = {
        name: inside
        for name in SPLITS
        if name in tree.listing(top)[0] and (inside := tree.listing(join(top, name))[0])
    }
    if not found:
        return top
    if split not in found:
        are_wnids = all(map(WNID.fullmatch, next(iter(found.values()))))
        mend = f": ImageNet's own layouts are read by imagenet:{tree.path}" if are_wnids else ""
        raise ValueError(
            f"data {spec}: it has {', '.join(found)} but no folder {split} with class folders in it"
            + mend
        )
    for other in ("train", "val"):
        same_classes(found[split], found.get(other, found[split]), f"{split} and {other}", spec)
    return join(top, split)
