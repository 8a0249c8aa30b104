"""The data card beside a .beton file: what is in it, where it came from, what was left out.

Notable:
- It is made from the finished file, read back from the disk, and names its sha256; `check_beton`
  (`tools/write_beton.py --check`) compares the two, and so does a copy to a node's disk.
- Duplicates are pictures whose stored pixels, before any compression, have the same hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from pipeline.data.betons.format import BetonFile, card_path, read_beton
from pipeline.data.betons.shards import Shard
from pipeline.data.betons.storage import Storage
from pipeline.data.content import content_sha256
from pipeline.data.sources import Source
from pipeline.progress import ProgressBar

FORMAT = "certline data card 2"
MOST_LISTED = 1000
"""Groups of duplicates; the counts are of all."""
PIECE = 16 * 2**20


def data_card(
    spec: str,
    split: str,
    source: Source,
    storage: Storage,
    written: BetonFile,
    shards: Sequence[Shard],
) -> dict[str, Any]:
    """Describe a finished file, whatever its name is yet."""
    names = source.class_names
    counts = np.bincount(written.labels, minlength=len(names))
    heights, widths = np.concatenate([shard.sizes for shard in shards]).T
    shapes = set(zip(written.heights.tolist(), written.widths.tolist(), strict=True))
    skipped = [entry for shard in shards for entry in shard.skipped]
    return {
        "format": FORMAT,
        "source": spec,
        "split": split,
        "preset": storage.preset,
        "size": storage.size,
        "storage": storage.record() if source.photographs else "untouched",
        "num_samples": len(written),
        "image_shape": [written.channels, *shapes.pop()] if len(shapes) == 1 else None,
        "class_names": list(names),
        "images_per_class": [int(count) for count in counts],
        "source_sizes": {"height": _spread(heights), "width": _spread(widths)},
        "stored_sizes": {"height": _spread(written.heights), "width": _spread(written.widths)},
        "stored_as_jpeg": int((~written.is_raw).sum()),
        "duplicates": _duplicates(source, written.labels, shards),
        "skipped": [{"picture": entry.picture, "reason": entry.reason} for entry in skipped],
        "passed_over": list(source.passed_over),
        "dataset_sha256": content_sha256(written, "read back") if written.is_exact else None,
        "file_bytes": written.path.stat().st_size,
        "file_sha256": file_sha256(written.path),
        "source_sha256": source.identity,
        "pillow": PIL.__version__,
    }


def write_card(card: dict[str, Any], path: Path) -> None:
    """Write beside, and rename."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w") as file:
            file.write(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_beton(path: Path) -> dict[str, Any]:
    """Compare a file with its data card; returns the card.

    Raises:
        ValueError: one is missing or damaged, or they do not belong together.
    """
    written = read_beton(path)
    card = card_path(path)
    if not card.is_file():
        raise ValueError(f"{path} has no data card {card.name}: nothing to check it against")
    tree: dict[str, Any] = json.loads(card.read_text())  # read_beton has read it already
    if "file_sha256" not in tree:
        raise ValueError(f"data card {card} names no sha256, it is of an older version")
    found = file_sha256(path)
    if found != tree["file_sha256"] or len(written) != tree["num_samples"]:
        raise ValueError(
            f"{path} is not the file that its data card speaks of: its sha256 is {found} and must "
            f"be {tree['file_sha256']}: write it again with tools/write_beton.py"
        )
    return tree


def file_sha256(path: Path) -> str:
    """Hex digest of a file, with a progress bar."""
    digest = hashlib.sha256()
    with (
        path.open("rb") as file,
        ProgressBar("checksum", total=path.stat().st_size, unit="B") as bar,
    ):
        while piece := file.read(PIECE):
            digest.update(piece)
            bar.advance(len(piece))
    return digest.hexdigest()


def _spread(lengths: npt.NDArray[np.int64]) -> dict[str, int]:
    """The smallest, the middle and the largest."""
    return {
        "least": int(lengths.min()),
        "median": int(np.quantile(lengths, 0.5, method="lower")),
        "most": int(lengths.max()),
    }


def _duplicates(
    source: Source, labels: npt.NDArray[np.int64], shards: Sequence[Shard]
) -> dict[str, Any]:
    """Pictures that are there more than once, and whether their labels agree."""
    digests = np.concatenate([shard.digests for shard in shards])
    indices = np.concatenate([shard.indices for shard in shards])
    words = digests.view("<u8").reshape(-1, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))  # stable: within a group by index
    same = (words[order][1:] == words[order][:-1]).all(axis=1)
    groups: list[list[int]] = []
    for position in np.flatnonzero(same):
        if groups and groups[-1][-1] == order[position]:
            groups[-1].append(int(order[position + 1]))
        else:
            groups.append([int(order[position]), int(order[position + 1])])
    groups.sort()
    return {
        "pictures": sum(len(group) - 1 for group in groups),
        "with_several_labels": sum(len(set(labels[group].tolist())) > 1 for group in groups),
        "groups": [
            [source.describe(int(indices[number])) for number in group]
            for group in groups[:MOST_LISTED]
        ],
    }
