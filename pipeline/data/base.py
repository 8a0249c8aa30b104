"""What a loader is: the contracts that the FFCV and the memory loader keep.

Notable:
- A training loader gives this rank's share of each global batch (`order.py`). A block loader, for
  validation and certification, knows no ranks: it gives whole blocks of 256 consecutive indices,
  the last one short and never padded, and the caller says which.
- Batches are tensors of their own; nothing that a loader does later changes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pipeline.types import Batch

BLOCK = 256
"""Consecutive indices that no process splits (certificates depend on it: never change it)."""


@dataclass(frozen=True)
class GeneratedInfo:
    """What is known of the generated images of a mixed batch."""

    spec: str
    """As written by the user."""
    num_samples: int
    ratio: tuple[int, int]
    """Real and generated images of the smallest whole batch."""
    sha256: str
    """Of the set (`generated.py`)."""

    def of_batch(self, batch_size: int) -> int:
        """How many images of a batch are generated."""
        return batch_size // sum(self.ratio) * self.ratio[1]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before its first batch."""

    spec: str
    """As written by the user: `digits`, `folder:PATH`, `npz:PATH` or a .beton file."""
    num_samples: int
    image_shape: tuple[int, int, int]
    """(C, H, W) of the batches."""
    num_classes: int
    """K; labels are 0..K-1."""
    class_names: tuple[str, ...]
    exact: bool
    """Whether batches hold the pixels that certification speaks of: neither compressed with loss
    nor augmented. False for every training loader."""
    classes: tuple[int, ...] | None = None
    """Of a subset of the classes (`data.classes`): their labels in the whole set, in the order of
    the new labels; None for a whole set."""
    generated: GeneratedInfo | None = None
    """What training batches hold besides; all else here speaks of the real images."""


class TrainLoader(Protocol):
    """Shuffled, augmented training data."""

    info: DatasetInfo
    steps_per_epoch: int

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This rank's share of each global batch of an epoch, in order, from `start_step` on."""
        ...

    def close(self) -> None:
        """End all threads. The loader gives no more batches."""
        ...


class BlockLoader(Protocol):
    """The exact pixels of a data set, in blocks of `BLOCK` consecutive indices."""

    info: DatasetInfo
    num_blocks: int

    def blocks(self, indices: Sequence[int]) -> Iterator[Batch]:
        """The blocks with these numbers, whole, in the order asked."""
        ...

    def pictures(self, indices: Sequence[int]) -> torch.Tensor:
        """Single images to look at, [n, C, H, W] uint8, in the order asked."""
        ...

    def dataset_sha256(self) -> str:
        """The content hash of all pixels and labels (`content.py`)."""
        ...

    def close(self) -> None:
        """End all threads. The loader gives no more blocks."""
        ...


def make_batch(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[Any], sample_ids: npt.NDArray[Any]
) -> Batch:
    """A Batch of copies of images [B, C, H, W] uint8 (any strides), labels [B] and ids [B]."""
    return Batch(
        images=torch.from_numpy(np.array(images, order="C")),
        labels=torch.from_numpy(labels.astype(np.int64)),
        sample_ids=torch.from_numpy(sample_ids.astype(np.int64)),
        is_generated=torch.zeros(len(labels), dtype=torch.bool),
    )
