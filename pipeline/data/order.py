"""Which samples are in which step, and the key of each sample's random augmentation.

Notable:
- Epoch e is a permutation fixed by (seed, e) alone. Global batch b is its b-th slice of B samples,
  and of each slice rank r takes its `share`; so 1, 2 or 64 processes see the same samples in the
  same steps, and an epoch can be entered at any step. A tail shorter than B is not in the epoch.
- The permutation is a stable argsort of splitmix64 hashes: it does not depend on the version of
  NumPy, whose `Generator.permutation` gives no such promise.
- A sample's augmentation draws on the stream of its key, a hash of (seed, epoch, sample id):
  neither the batch, the rank nor the worker has a part in it.
- Generated images have epochs of their own, which end where they end, also inside a batch; where a
  step reads follows from the number of the step alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

KEY = np.dtype([("sample", "<u8"), ("key", "<u8")])
"""One entry of an order: a sample id and the key of its augmentation in this epoch."""

PERMUTATION, AUGMENTATION, STORAGE, GENERATED_PERMUTATION, GENERATED_AUGMENTATION = range(1, 6)
"""What a hash is for; the streams of one seed are unrelated."""

_U64 = np.uint64
_GOLDEN = _U64(0x9E3779B97F4A7C15)

U64Array = npt.NDArray[np.uint64]


def mix(values: U64Array) -> U64Array:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): a bijection of 64-bit integers."""
    values = (values ^ (values >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> _U64(27))) * _U64(0x94D049BB133111EB)
    return values ^ (values >> _U64(31))


def sample_hashes(
    purpose: int, seed: int, epoch: npt.ArrayLike, samples: npt.ArrayLike
) -> U64Array:
    """A 64-bit hash of (purpose, seed, epoch, sample) for each of `samples` [n]; distinct in n.

    Args:
        epoch: one, or that of each sample [n].
    """
    state = np.zeros(1, _U64)
    for part in (purpose, seed, epoch, samples):
        state = mix((state ^ np.asarray(part, _U64)) + _GOLDEN)
    return state


def permutation(
    seed: int, epoch: int, size: int, purpose: int = PERMUTATION
) -> npt.NDArray[np.int64]:
    """The sample ids 0..size-1 in the order of this epoch, [size]."""
    hashes = sample_hashes(purpose, seed, epoch, np.arange(size))
    return np.argsort(hashes, kind="stable").astype(np.int64)


def share(n: int, rank: int, world: int) -> tuple[int, int]:
    """The part [start, stop) of n items that is `rank`'s; parts differ by one item at most."""
    part, extra = divmod(n, world)
    return rank * part + min(rank, extra), (rank + 1) * part + min(rank + 1, extra)


class Steps(Protocol):
    """Which samples each step reads."""

    @property
    def batch_size(self) -> int:
        """Samples of one step, over all ranks."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch of the run."""
        ...

    def epoch(
        self, epoch: int, start_step: int = 0, rank: int = 0, world: int = 1
    ) -> npt.NDArray[Any]:
        """What `rank` reads from `start_step` to the end of the epoch.

        Returns:
            [steps, share of the rank] of `KEY`, one row a step.
        """
        ...


@dataclass(frozen=True)
class Order:
    """The global batches of a training run."""

    size: int
    """Samples in the data set."""
    batch_size: int
    """Samples of one step, over all ranks."""
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return self.size // self.batch_size

    def epoch(
        self, epoch: int, start_step: int = 0, rank: int = 0, world: int = 1
    ) -> npt.NDArray[Any]:
        """What `rank` reads from `start_step` to the end of the epoch.

        Returns:
            [steps, share of the rank] of `KEY`, one row a step.
        """
        assert 0 <= start_step <= self.steps_per_epoch, f"step {start_step} is not in the epoch"
        used = self.steps_per_epoch * self.batch_size
        ids = permutation(self.seed, epoch, self.size)[:used].reshape(-1, self.batch_size)
        ids = ids[start_step:, slice(*share(self.batch_size, rank, world))]
        keys = np.empty(ids.shape, KEY)
        keys["sample"] = ids
        keys["key"] = sample_hashes(AUGMENTATION, self.seed, epoch, ids)
        return keys


@dataclass(frozen=True)
class GeneratedOrder:
    """The generated images of a run's batches: one pass over the set after the other, without end.

    Each image is used once in each pass. A pass is a permutation fixed by the seed and its number,
    and so is the augmentation of its images.
    """

    size: int
    """Images in the generated set."""
    batch_size: int
    """Generated images of one step, over all ranks."""
    seed: int
    steps_per_epoch: int
    """Of the real images, which say what an epoch is."""

    def epoch(
        self, epoch: int, start_step: int = 0, rank: int = 0, world: int = 1
    ) -> npt.NDArray[Any]:
        """See `Steps`."""
        assert 0 <= start_step <= self.steps_per_epoch, f"step {start_step} is not in the epoch"
        first = (epoch * self.steps_per_epoch + start_step) * self.batch_size
        stop = (epoch + 1) * self.steps_per_epoch * self.batch_size
        orders = [
            permutation(self.seed, number, self.size, GENERATED_PERMUTATION)
            for number in range(first // self.size, -(-stop // self.size))
        ]
        skipped = first % self.size  # of the first pass
        ids = np.concatenate(orders or [np.empty(0, np.int64)])[skipped : skipped + stop - first]
        passes = np.arange(first, stop) // self.size
        mine = slice(*share(self.batch_size, rank, world))
        ids, passes = (part.reshape(-1, self.batch_size)[:, mine] for part in (ids, passes))
        keys = np.empty(ids.shape, KEY)
        keys["sample"] = ids
        keys["key"] = sample_hashes(GENERATED_AUGMENTATION, self.seed, passes, ids)
        return keys
