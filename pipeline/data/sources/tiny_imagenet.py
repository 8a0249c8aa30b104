"""`tiny_imagenet:PATH`: Tiny-ImageNet-200 in its own layout, a folder, zip or uncompressed tar.

    wnids.txt  words.txt
    train/n01443537/images/n01443537_0.JPEG ...   (and n01443537_boxes.txt, not read)
    val/images/val_0.JPEG ...  val/val_annotations.txt

Notable:
- Labels are positions among the *sorted* wnids, as torchvision's ImageFolder has them; wnids.txt
  has another order.
- A val that was sorted into class folders, with or without `images` in them, is read as well.
- test/ has no labels and is not read.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.data.sources.base import Split, existing
from pipeline.data.sources.files import PictureFiles, in_classes, same_classes
from pipeline.data.sources.folder import lone_folders
from pipeline.data.sources.open_tree import open_tree
from pipeline.data.sources.tree import Tree, has_file, has_folder, join
from pipeline.data.sources.wnids import WNID, listed_names, with_names

WNIDS = "wnids.txt"
ANNOTATIONS = "val/val_annotations.txt"
FOLDER = "tiny-imagenet-200"


def open_tiny_imagenet(path: Path, split: Split) -> PictureFiles:
    """Tiny-ImageNet.

    Raises:
        ValueError: PATH holds no such layout, classes differ, or a picture of val is missing or
            not annotated.
    """
    spec = f"tiny_imagenet:{path}"
    tree = open_tree(existing(path, spec), spec)
    top = next((at for at in ("", FOLDER) if has_file(tree, join(at, WNIDS))), None)
    top = lone_folders(tree, ("train", "val", "test"))[-1] if top is None else top
    if not has_file(tree, join(top, WNIDS)):
        raise ValueError(
            f"data {spec}: no {WNIDS} in {path}: expected {FOLDER} or {FOLDER}.zip as it is "
            "published; class folders in train/ and val/ are read by folder:PATH"
        )
    classes = _classes(tree, join(top, WNIDS), spec)
    if split == "train" or _sorted_into_classes(tree, top):
        root = join(top, split)
        found = tree.listing(root)[0] if has_folder(tree, root) else []
        same_classes(found, classes, f"{split} and {WNIDS}", spec)
        inside = "images" if has_folder(tree, join(root, f"{classes[0]}/images")) else ""
        files, labels = in_classes(tree, root, classes, spec, inside)
    else:
        files, labels = _annotated(tree, top, classes, spec)
    names = listed_names(tree, [top], spec)
    return PictureFiles(tree, files, labels, with_names(classes, names))


def _classes(tree: Tree, file: str, spec: str) -> list[str]:
    lines = _lines(tree, file, spec)
    strange = next((line for line in lines if not WNID.fullmatch(line)), None)
    if strange is not None or len(set(lines)) != len(lines) or not lines:
        raise ValueError(
            f"data {spec}: {tree.describe(file)} is not a list of different wnids"
            + (f": {strange!r}" if strange is not None else "")
        )
    return sorted(lines)


def _sorted_into_classes(tree: Tree, top: str) -> bool:
    val = join(top, "val")
    return has_folder(tree, val) and any(map(WNID.fullmatch, tree.listing(val)[0]))


def _annotated(tree: Tree, top: str, classes: list[str], spec: str) -> tuple[list[str], list[int]]:
    """Pictures and labels of val as published, in the order of the annotations."""
    annotations, folder = join(top, ANNOTATIONS), join(top, "val/images")
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    files: list[str] = []
    labels: list[int] = []
    where = tree.describe(annotations)
    for number, line in enumerate(_lines(tree, annotations, spec), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in label_of:
            raise ValueError(
                f"data {spec}: line {number} of {where} is {line!r}, expected a picture and one of "
                f"the classes of {WNIDS}"
            )
        files.append(join(folder, name))
        labels.append(label_of[wnid])
    there = {join(folder, name) for names in _inside(tree, folder) for name in names}
    differing = sorted(set(files) ^ there)
    if differing or len(set(files)) != len(files) or not files:
        first = f": {differing[0]}" if differing else ""
        raise ValueError(
            f"data {spec}: {where} names {len(files):,} pictures and val/images holds "
            f"{len(there):,}, which are not the same{first}: fetch the archive again"
        )
    return files, labels


def _inside(tree: Tree, folder: str) -> tuple[list[str], list[str]]:
    return tree.listing(folder) if has_folder(tree, folder) else ([], [])


def _lines(tree: Tree, file: str, spec: str) -> list[str]:
    try:
        return tree.read(file).decode().splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"data {spec}: {tree.describe(file)} cannot be read ({reason}): fetch the archive again"
        ) from None
