"""RandAugment against torchvision's steps written out in PIL (`pil_augment.py`), to the bit."""

import io
import tarfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import RandAugmentConfig
from pipeline.data import kernels
from pipeline.data.order import AUGMENTATION, sample_hashes
from pipeline.data.randaugment import OPERATIONS, randaugment_table
from tests.data import pil_augment
from tests.data.pil_augment import SIGNED, magnitude, to_array, to_pil
from tests.shared_data import shared_file

KINDS = ("noise", "narrow", "ramp", "flat", "two values")


def picture(kind: str, size: int, channels: int, seed: int = 0) -> np.ndarray:
    """[size, size, channels]: pictures of full, narrow, even and trivial histograms."""
    rng = np.random.default_rng(seed)
    shape = (size, size, channels)
    if kind == "noise":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "narrow":
        low = rng.integers(0, 250, (1, 1, channels))
        return (low + rng.integers(0, 6, shape)).astype(np.uint8)
    if kind == "ramp":
        y, x = np.mgrid[:size, :size]
        return np.stack([y * 255 // size, x * 255 // size, (x + y) % 256][:channels], -1).astype(
            "u1"
        )
    if kind == "flat":
        return np.full(shape, rng.integers(256), np.uint8)
    return rng.choice(rng.integers(0, 256, 2), shape).astype(np.uint8)


def both(before: np.ndarray, name: str, sign: int, config: RandAugmentConfig) -> list[np.ndarray]:
    """What the kernel and what PIL make of a square picture."""
    size = len(before)
    matrices, amounts = randaugment_table(config, size)
    number, column = OPERATIONS.index(name), (1, -1).index(sign)
    mine = before.copy()
    kernels.operate(mine, number, matrices[number, column], amounts[number, column])
    amount = magnitude(name, config.magnitude, config.bins, (size, size))
    if name in SIGNED:
        amount *= sign
    return [mine, to_array(pil_augment.operate(to_pil(before), name, amount))]


def test_the_operations_are_numbered_as_torchvisions() -> None:
    assert list(OPERATIONS) == pil_augment.OPERATIONS


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_magnitude_is_pils(name: str) -> None:
    changed = 0
    for bin_ in range(31):
        config = RandAugmentConfig(magnitude=bin_)
        for sign in (1, -1):
            for channels in (1, 3):
                kind = KINDS[bin_ % 3]
                before = picture(kind, 32, channels, seed=bin_)
                mine, theirs = both(before, name, sign, config)
                assert np.array_equal(mine, theirs), (bin_, sign, channels)
                changed += not np.array_equal(mine, before)
    assert (changed > 0) == (name != "Identity")


@settings(deadline=None, max_examples=400, derandomize=True)
@given(
    st.sampled_from(OPERATIONS),
    st.sampled_from([1, -1]),
    st.sampled_from(KINDS),
    st.integers(1, 64),
    st.sampled_from([1, 3]),
    st.integers(2, 60).flatmap(lambda bins: st.tuples(st.just(bins), st.integers(0, bins - 1))),
    st.integers(0, 99),
)
@example("Sharpness", 1, "noise", 2, 3, (31, 9), 0)  # no pixel inside the border
@example("Equalize", 1, "noise", 16, 1, (31, 9), 0)  # fewer pixels than values
@example("Rotate", -1, "ramp", 63, 3, (2, 1), 0)
def test_every_size_and_content_is_pils(
    name: str, sign: int, kind: str, size: int, channels: int, level: tuple[int, int], seed: int
) -> None:
    config = RandAugmentConfig(bins=level[0], magnitude=level[1])
    mine, theirs = both(picture(kind, size, channels, seed), name, sign, config)
    assert np.array_equal(mine, theirs)


def test_photographs_are_pils() -> None:
    with tarfile.open(shared_file("unit_mini.tar")) as tar:
        files = [member for member in tar if member.isfile() and member.name.startswith("train")]
        photos = [Image.open(io.BytesIO(tar.extractfile(file).read())) for file in files[::20]]
    for photo in photos:
        for mode in ("RGB", "L"):
            before = to_array(photo.convert(mode).resize((224, 224)))
            for name in OPERATIONS:
                for sign in (1, -1):
                    mine, theirs = both(before, name, sign, RandAugmentConfig())
                    assert np.array_equal(mine, theirs), (name, sign, mode)


def test_blends_round_as_pil_for_every_pair_of_values() -> None:
    """All 65,536 pairs of a picture's value and a grey, by Color and by Contrast."""
    y, x = np.mgrid[:256, :256].astype(np.uint8)
    before = np.stack([y, x, y], axis=-1)
    for bin_ in (1, 3, 9, 20, 30):
        for name in ("Color", "Contrast", "Brightness"):
            for sign in (1, -1):
                mine, theirs = both(before, name, sign, RandAugmentConfig(magnitude=bin_))
                assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operations", [1, 2, 5])
def test_a_chain_of_operations_follows_the_draws(channels: int, operations: int) -> None:
    config, size = RandAugmentConfig(operations=operations), 32
    keys = sample_hashes(AUGMENTATION, 1, 2, np.arange(150))
    before = [picture(KINDS[i % 3], size, channels, seed=i) for i in range(len(keys))]
    images = np.stack(before)
    kernels.randaugment(images, keys, operations, *randaugment_table(config, size))
    for image, key, one in zip(images, keys, map(to_pil, before), strict=True):
        for j in range(operations):
            name = OPERATIONS[int(kernels.uniform(key, 128 + 2 * j) * 14)]
            amount = magnitude(name, 9, 31, (size, size))
            if name in SIGNED and kernels.uniform(key, 129 + 2 * j) < 0.5:
                amount = -amount
            one = pil_augment.operate(one, name, amount)
        assert np.array_equal(image, to_array(one))


def test_operations_and_signs_are_drawn_evenly_and_by_themselves() -> None:
    keys = sample_hashes(AUGMENTATION, 0, 0, np.arange(14_000))
    first, sign, second = (
        np.array([kernels.uniform(key, n) for key in keys]) for n in (128, 129, 130)
    )
    operations = (first * 14).astype(int), (second * 14).astype(int)
    for counts in map(np.bincount, operations):
        assert len(counts) == 14
        assert ((counts - 1000) ** 2 / 1000).sum() < 34.5  # 13 degrees of freedom, p = 0.001
    pairs = np.histogram2d(*operations, bins=14)[0]
    expected = len(keys) / 196
    assert ((pairs - expected) ** 2 / expected).sum() < 262  # 195 degrees of freedom, p = 0.001
    assert abs((sign < 0.5).mean() - 0.5) < 0.014
    assert abs(np.corrcoef(first, sign)[0, 1]) < 0.03
