"""The stream of draws, crop, flip and Cutout against NumPy."""

import numpy as np
import pytest

from pipeline.data import kernels
from pipeline.data.order import AUGMENTATION, mix, sample_hashes

KEYS = sample_hashes(AUGMENTATION, 1, 2, np.arange(400))
GOLDEN = 0x9E3779B97F4A7C15
rng = np.random.default_rng(0)


def reference_uniform(key: int, n: int) -> float:
    """splitmix64 with state `key`: its number n, the upper 53 bits."""
    state = np.array([(int(key) + (n + 1) * GOLDEN) % 2**64], np.uint64)
    return (int(mix(state)[0]) >> 11) / 2**53


def reference_crop(picture: np.ndarray, key: int, padding: int, size: int) -> np.ndarray:
    padded = np.pad(picture, ((padding, padding), (padding, padding), (0, 0)))
    y = int(reference_uniform(key, 0) * (padded.shape[0] - size + 1))
    x = int(reference_uniform(key, 1) * (padded.shape[1] - size + 1))
    return padded[y : y + size, x : x + size]


def test_uniform_is_the_stream_of_splitmix64() -> None:
    for key in [*KEYS[:20], np.uint64(0), np.uint64(2**64 - 1)]:
        for n in (0, 1, 64, 1000):
            assert kernels.uniform(key, n) == reference_uniform(key, n)


def test_uniform_is_uniform_and_its_draws_are_unrelated() -> None:
    keys = sample_hashes(AUGMENTATION, 0, 0, np.arange(20_000))
    draws = np.array([[kernels.uniform(key, n) for n in (0, 1, 64)] for key in keys])
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in draws.T])
    chi_square = ((counts - 1000) ** 2 / 1000).sum(axis=1)
    assert (chi_square < 43.8).all()  # 19 degrees of freedom, p = 0.001
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize(
    ("height", "width", "size", "channels", "padding"),
    [(8, 8, 8, 1, 1), (32, 32, 32, 3, 4), (28, 28, 28, 1, 0), (24, 40, 20, 3, 0), (9, 11, 8, 3, 2)],
)
def test_crop_is_numpy_padding_and_slicing(
    height: int, width: int, size: int, channels: int, padding: int
) -> None:
    picture = rng.integers(1, 256, (height, width, channels), dtype=np.uint8)
    out = np.full((size, size, channels), 77, np.uint8)
    places = set()
    for key in KEYS:
        kernels.crop(picture, key, padding, out)
        assert np.array_equal(out, reference_crop(picture, key, padding, size))
        places.add(out.tobytes())
    # Every place occurs: 81 of them at most, in 400 draws (a few may be missed by chance).
    possible = (height + 2 * padding - size + 1) * (width + 2 * padding - size + 1)
    assert 0.95 * possible <= len(places) <= possible


@pytest.mark.parametrize("resized", [False, True])
def test_pictures_in_a_file_are_cut_like_others(resized: bool) -> None:
    sizes = [(20, 24), (16, 16), (33, 17)]
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    gap = b"\0" * 5
    file = np.frombuffer(gap + gap.join(picture.tobytes() for picture in pictures), np.uint8)
    offsets = np.cumsum([5, *(picture.size + 5 for picture in pictures[:-1])])
    heights, widths = np.array(sizes, np.int64).T.copy()
    samples = np.array([2, 0, 1, 2, 2, 0], np.uint64)
    out = np.empty((6, 16, 16, 3), np.uint8)
    box = kernels.Box((0.1, 0.9), (0.5, 2.0)) if resized else None
    kernels.cut_stored(file, offsets, heights, widths, samples, KEYS[:6], 1, box, out)
    for got, sample, key in zip(out, samples, KEYS, strict=False):
        expected = reference_crop(pictures[int(sample)], key, 1, 16).copy()
        if resized:
            kernels.resized_crop(pictures[int(sample)], key, box, expected)
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 7, 3)])
def test_flip_mirrors_about_half_and_the_rest_not_at_all(shape: tuple[int, int, int]) -> None:
    before = rng.integers(0, 256, (len(KEYS), *shape), dtype=np.uint8)
    after = before.copy()
    kernels.flip(after, KEYS)
    flipped = np.array([reference_uniform(key, 64) < 0.5 for key in KEYS])
    assert np.array_equal(after[flipped], before[flipped][:, :, ::-1])
    assert np.array_equal(after[~flipped], before[~flipped])
    assert 0.4 < flipped.mean() < 0.6


def test_flip_does_not_follow_the_crop() -> None:
    crops = np.array([reference_uniform(key, 1) for key in KEYS])
    flips = np.array([reference_uniform(key, 64) for key in KEYS])
    assert abs(np.corrcoef(crops, flips)[0, 1]) < 0.15


@pytest.mark.parametrize(("size", "side"), [(8, 3), (9, 4), (7, 7), (32, 16), (5, 1)])
def test_cutout_is_a_black_square_around_any_pixel(size: int, side: int) -> None:
    keys = sample_hashes(AUGMENTATION, 3, 4, np.arange(60 * size * size))
    images = np.full((len(keys), size, size, 2), 9, np.uint8)
    kernels.cutout(images, keys, side)
    centres = np.zeros((size, size), np.int64)
    for image, key in zip(images, keys, strict=True):
        y, x = (int(reference_uniform(key, n) * size) for n in (72, 73))
        expected = np.full((size, size, 2), 9, np.uint8)
        top, left = y - side // 2, x - side // 2
        expected[max(0, top) : top + side, max(0, left) : left + side] = 0
        assert np.array_equal(image, expected)
        centres[y, x] += 1
    chi_square = ((centres - 60) ** 2 / 60).sum()
    assert chi_square < size**2 + 4 * size * np.sqrt(2)  # four standard deviations
