"""Readable names of ImageNet's classes, from whatever list lies beside the pictures.

Notable:
- A wnid ("n01440764") is WordNet's number of a noun. A class is called "n01440764 tench", the wnid
  first because names repeat (crane, maillot), or by the bare wnid where no list tells more.
- Of several synonyms the first is taken.
- Labels are positions among the sorted wnids, everywhere. Only the devkit counts otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.data.sources.tree import Tree, join

WNID = re.compile(r"n\d{8}")
INDEX = "imagenet_class_index.json"
"""{"0": ["n01440764", "tench"], ...}"""
LISTS = ("LOC_synset_mapping.txt", "words.txt")
"""Kaggle's and WordNet's: a line is the wnid, a space or tab, and the synonyms."""


def with_names(wnids: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Class names, in the same order."""
    return tuple(f"{wnid} {names[wnid]}" if wnid in names else wnid for wnid in wnids)


def listed_names(tree: Tree, folders: Iterable[str], spec: str) -> dict[str, str]:
    """Names by wnid from the first list that lies in one of the folders; {} without a list.

    Raises:
        ValueError: the list cannot be read.
    """
    for folder in folders:
        files = tree.listing(folder)[1]
        for name in (INDEX, *LISTS):
            if name in files:
                file = join(folder, name)
                try:
                    text = tree.read(file).decode()
                    return _from_index(text) if name == INDEX else _from_lines(text)
                except (OSError, ValueError) as error:
                    raise ValueError(
                        f"data {spec}: {tree.describe(file)}, which names the classes, cannot be "
                        f"read ({error}): mend or remove it"
                    ) from None
    return {}


def first_synonym(words: str) -> str:
    """ "tench, Tinca tinca" is a tench."""
    return words.split(",")[0].strip()


def _from_index(text: str) -> dict[str, str]:
    index = json.loads(text)
    if not isinstance(index, dict):
        raise ValueError("not a map from numbers to wnid and name")
    names = {}
    for entry in index.values():
        if not isinstance(entry, list) or len(entry) != 2 or not WNID.fullmatch(str(entry[0])):
            raise ValueError(f"{entry} is not a wnid and a name")
        names[entry[0]] = str(entry[1]).replace("_", " ")
    return names


def _from_lines(text: str) -> dict[str, str]:
    split = (line.split(maxsplit=1) for line in text.splitlines())
    return {
        words[0]: first_synonym(words[1])
        for words in split
        if len(words) == 2 and WNID.fullmatch(words[0])
    }
